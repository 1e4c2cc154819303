package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The parts of the OCI image format that are used here.
type (
	object     = map[string]any
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	index struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
)

const (
	nobody      = 65532
	nameKey     = "io.containerd.image.name"
	typeConfig  = "application/vnd.oci.image.config.v1+json"
	typeIndex   = "application/vnd.oci.image.index.v1+json"
	typeLayer   = "application/vnd.oci.image.layer.v1.tar"
	typeLayout  = `{"imageLayoutVersion":"1.0.0"}`
	typeOCI     = "application/vnd.oci.image.manifest.v1+json"
	passwdEntry = "nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"
)

// several collects a flag that may be given more than once.
type several []string

func (s *several) String() string     { return strings.Join(*s, ",") }
func (s *several) Set(v string) error { *s = append(*s, v); return nil }

// oci writes an image with one static binary as an archive. The same input
// always gives the same bytes, so the digest tells whether anything changed.
func oci(args []string) error {
	flags := flag.NewFlagSet("oci", flag.ContinueOnError)
	output := flags.String("o", "", "the archive to write")
	var files, labels several
	flags.Var(&files, "add", "SOURCE:PATH, a file or folder to put into the image (may be repeated)")
	flags.Var(&labels, "label", "KEY=VALUE (may be repeated)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *output == "" || flags.NArg() < 2 {
		return errors.New("give -o FILE, NAME:TAG and BINARY")
	}
	name, binary := qualified(flags.Arg(0)), flags.Arg(1)
	if err := mustBeStatic(binary); err != nil {
		return err
	}
	entry := "/" + filepath.Base(binary)
	layer, err := layerOf(binary, entry, files)
	if err != nil {
		return err
	}
	texts := map[string]string{"org.opencontainers.image.title": path.Base(entry)}
	for _, label := range labels {
		key, value, found := strings.Cut(label, "=")
		if !found {
			return fmt.Errorf("label %q is not KEY=VALUE", label)
		}
		texts[key] = value
	}

	blobs := map[string][]byte{}
	add := func(mediaType string, content []byte) descriptor {
		sum := sha256.Sum256(content)
		digest := hex.EncodeToString(sum[:])
		blobs[digest] = content
		return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(content)}
	}
	addJSON := func(mediaType string, value any) descriptor {
		content, _ := json.Marshal(value)
		return add(mediaType, content)
	}
	layerAt := add(typeLayer, layer)
	configAt := addJSON(typeConfig, object{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": object{
			"User":       fmt.Sprintf("%d:%d", nobody, nobody),
			"Entrypoint": append([]string{entry}, flags.Args()[2:]...),
			"Env":        []string{"PATH=/"},
			"WorkingDir": "/",
			"Labels":     texts,
		},
		"rootfs": object{"type": "layers", "diff_ids": []string{layerAt.Digest}},
	})
	manifestAt := addJSON(typeOCI, object{
		"schemaVersion": 2, "mediaType": typeOCI, "config": configAt, "layers": []descriptor{layerAt},
	})
	_, tag, _ := strings.Cut(path.Base(name), ":")
	manifestAt.Annotations = map[string]string{nameKey: name, "org.opencontainers.image.ref.name": tag}
	top, _ := json.Marshal(index{2, typeIndex, []descriptor{manifestAt}})

	return writeArchive(*output, top, blobs)
}

// qualified writes a short name in full, as the kubelet will ask for it.
func qualified(name string) string {
	first, _, nested := strings.Cut(name, "/")
	switch {
	case !nested:
		name = "docker.io/library/" + name
	case first != "localhost" && !strings.ContainsAny(first, ".:"):
		name = "docker.io/" + name
	}
	if !strings.Contains(path.Base(name), ":") {
		name += ":latest"
	}
	return name
}

// mustBeStatic: there is nothing but the binary in the image, so one that
// needs a loader would fail with a puzzling "no such file or directory".
func mustBeStatic(binary string) error {
	file, err := elf.Open(binary)
	if err != nil {
		return fmt.Errorf("%s: %w", binary, err)
	}
	defer file.Close()
	for _, header := range file.Progs {
		if header.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is dynamically linked; build it static "+
				"(Rust: RUSTFLAGS='-C target-feature=+crt-static' and an explicit --target; Go: CGO_ENABLED=0)", binary)
		}
	}
	return nil
}

func layerOf(binary, entry string, files []string) ([]byte, error) {
	var buffer bytes.Buffer
	layer := tar.NewWriter(&buffer)
	made := map[string]bool{"/": true}
	parents := func(at string) error {
		for dir := path.Dir(at); !made[dir]; dir = path.Dir(dir) {
			made[dir] = true
			if err := layer.WriteHeader(header(dir+"/", tar.TypeDir, 0o755, 0)); err != nil {
				return err
			}
		}
		return nil
	}
	put := func(at string, mode int64, content []byte) error {
		if err := parents(at); err != nil {
			return err
		}
		if err := layer.WriteHeader(header(at, tar.TypeReg, mode, int64(len(content)))); err != nil {
			return err
		}
		_, err := layer.Write(content)
		return err
	}
	if err := put("/etc/passwd", 0o644, []byte(passwdEntry)); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	if err := put(entry, 0o755, content); err != nil {
		return nil, err
	}
	for _, file := range files {
		source, target, found := strings.Cut(file, ":")
		if !found || !path.IsAbs(target) {
			return nil, fmt.Errorf("--add %q is not SOURCE:/PATH", file)
		}
		// WalkDir goes in lexical order, so the layer is the same every time.
		err := filepath.WalkDir(source, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			information, err := os.Stat(name)
			if err != nil {
				return err
			}
			mode := int64(0o644)
			if information.Mode()&0o111 != 0 {
				mode = 0o755
			}
			return put(path.Clean(target+strings.TrimPrefix(filepath.ToSlash(name), filepath.ToSlash(source))), mode, content)
		})
		if err != nil {
			return nil, err
		}
	}
	err = layer.Close()
	return buffer.Bytes(), err
}

// header names no user, machine or time of this build.
func header(name string, kind byte, mode, size int64) *tar.Header {
	return &tar.Header{
		Name: strings.TrimPrefix(name, "/"), Typeflag: kind, Mode: mode, Size: size,
		ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}
}

func writeArchive(output string, top []byte, blobs map[string][]byte) error {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	put := func(name string, content []byte) {
		_ = archive.WriteHeader(header(name, tar.TypeReg, 0o644, int64(len(content))))
		_, _ = archive.Write(content)
	}
	put("oci-layout", []byte(typeLayout))
	put("index.json", top)
	digests := []string{}
	for digest := range blobs {
		digests = append(digests, digest)
	}
	slices.Sort(digests)
	for _, digest := range digests {
		put("blobs/sha256/"+digest, blobs[digest])
	}
	if err := archive.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(output+".new", buffer.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(output+".new", output)
}

// digest prints what an archive holds: "NAME DIGEST" for each named image.
func digest(args []string) error {
	if len(args) != 1 {
		return errors.New("give an archive")
	}
	file, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewReader(file)
	for {
		entry, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("no index.json: not an OCI archive")
		}
		if err != nil {
			return err
		}
		if path.Clean(entry.Name) != "index.json" {
			continue
		}
		var found index
		if err := json.NewDecoder(archive).Decode(&found); err != nil {
			return err
		}
		for _, manifest := range found.Manifests {
			if name := manifest.Annotations[nameKey]; name != "" {
				fmt.Println(name, manifest.Digest)
			}
		}
		return nil
	}
}
