// The media of one participant on Pion: two peer connections, asked for one line of JSON at a time.
//
// Each line of standard input is {"id", "do", ...}; each gets a line {"id", "answer"} or {"id", "error"}
// on standard output. Descriptions go in and out as text: signalling is the business of the one who
// asks. Pictures and sound are sent as they were encoded once; what comes in is put together but not
// decoded.
package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"github.com/pion/webrtc/v4/pkg/media/ivfreader"
	"github.com/pion/webrtc/v4/pkg/media/oggreader"
	"github.com/pion/webrtc/v4/pkg/media/samplebuilder"
)

// A second of red with a bar that moves, 320x180 at 15 frames a second, in VP8.
//
//go:embed red.ivf
var red []byte

// A second of 440 Hz in Opus.
//
//go:embed tone.ogg
var tone []byte

const (
	frameTime = time.Second / 15
	soundTime = 20 * time.Millisecond
)

type received struct {
	Kind      string `json:"kind"`
	Frames    int    `json:"frames"`
	KeyFrames int    `json:"keyFrames"`
	Bytes     int    `json:"bytes"`
	Width     int    `json:"width"`
	Height    int    `json:"height"`
}

type peer struct {
	publisher, subscriber *webrtc.PeerConnection
	mutex                 sync.Mutex
	received              map[string]*received
	begin                 sync.Once
	end                   chan struct{}
}

type ask struct {
	ID  int    `json:"id"`
	Do  string `json:"do"`
	SDP string `json:"sdp"`
}

func newPeer(tcp bool) (*peer, error) {
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	if tcp {
		settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	}
	api := webrtc.NewAPI(webrtc.WithSettingEngine(settings))
	publisher, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, err
	}
	subscriber, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, err
	}
	p := &peer{
		publisher:  publisher,
		subscriber: subscriber,
		received:   map[string]*received{},
		end:        make(chan struct{}),
	}
	subscriber.OnTrack(p.consume)
	return p, nil
}

func (p *peer) consume(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
	r := &received{Kind: track.Kind().String()}
	p.mutex.Lock()
	p.received[track.ID()] = r
	p.mutex.Unlock()
	video := track.Kind() == webrtc.RTPCodecTypeVideo
	builder := samplebuilder.New(64, &codecs.VP8Packet{}, track.Codec().ClockRate)
	if video {
		// As players do: a decoder can't start without.
		_ = p.subscriber.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(track.SSRC())}})
	}
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		if !video {
			p.note(func() { r.Frames++; r.Bytes += len(packet.Payload) })
			continue
		}
		builder.Push(packet)
		for sample := builder.Pop(); sample != nil; sample = builder.Pop() {
			p.note(func() { r.frame(sample.Data) })
		}
	}
}

func (p *peer) note(change func()) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	change()
}

// A whole VP8 frame; a key frame says how large it is (RFC 6386 section 9.1).
func (r *received) frame(data []byte) {
	r.Frames++
	r.Bytes += len(data)
	if len(data) < 10 || data[0]&1 != 0 || !bytes.Equal(data[3:6], []byte{0x9d, 0x01, 0x2a}) {
		return
	}
	r.KeyFrames++
	r.Width = (int(data[6]) | int(data[7])<<8) & 0x3fff
	r.Height = (int(data[8]) | int(data[9])<<8) & 0x3fff
}

func (p *peer) tracks() (any, error) {
	picture, err := webrtc.NewTrackLocalStaticSample(
		webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "pion-camera", "pion")
	if err != nil {
		return nil, err
	}
	sound, err := webrtc.NewTrackLocalStaticSample(
		webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, "pion-microphone", "pion")
	if err != nil {
		return nil, err
	}
	for _, track := range []*webrtc.TrackLocalStaticSample{sound, picture} {
		sender, err := p.publisher.AddTrack(track)
		if err != nil {
			return nil, err
		}
		// What is not read is not answered: NACKs are an interceptor's work.
		go func() {
			for {
				if _, _, err := sender.ReadRTCP(); err != nil {
					return
				}
			}
		}()
	}
	p.publisher.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			p.begin.Do(func() {
				go p.send(picture, frameTime, pictures)
				go p.send(sound, soundTime, sounds)
			})
		}
	})
	return []map[string]string{
		{"cid": sound.ID(), "kind": "audio"},
		{"cid": picture.ID(), "kind": "video"},
	}, nil
}

func pictures() ([][]byte, error) {
	reader, _, err := ivfreader.NewWith(bytes.NewReader(red))
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for {
		frame, _, err := reader.ParseNextFrame()
		if errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, frame)
	}
}

func sounds() ([][]byte, error) {
	reader, _, err := oggreader.NewWith(bytes.NewReader(tone))
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for {
		page, header, err := reader.ParseNextPage()
		if errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		if header.GranulePosition > 0 && !bytes.HasPrefix(page, []byte("OpusTags")) {
			all = append(all, page)
		}
	}
}

// Sends a second again and again.
func (p *peer) send(track *webrtc.TrackLocalStaticSample, each time.Duration, read func() ([][]byte, error)) {
	all, err := read()
	if err != nil || len(all) == 0 {
		fmt.Fprintln(os.Stderr, "nothing to send:", err)
		os.Exit(1)
	}
	ticker := time.NewTicker(each)
	defer ticker.Stop()
	for at := 0; ; at++ {
		select {
		case <-ticker.C:
			if err := track.WriteSample(media.Sample{Data: all[at%len(all)], Duration: each}); err != nil {
				return
			}
		case <-p.end:
			return
		}
	}
}

// Takes over a description and waits for all candidates, which then stand in it.
func local(pc *webrtc.PeerConnection, description webrtc.SessionDescription) (any, error) {
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(description); err != nil {
		return nil, err
	}
	<-gathered
	return pc.LocalDescription().SDP, nil
}

func (p *peer) offer() (any, error) {
	offer, err := p.publisher.CreateOffer(nil)
	if err != nil {
		return nil, err
	}
	return local(p.publisher, offer)
}

func (p *peer) subscribe(sdp string) (any, error) {
	offer := webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: sdp}
	if err := p.subscriber.SetRemoteDescription(offer); err != nil {
		return nil, err
	}
	answer, err := p.subscriber.CreateAnswer(nil)
	if err != nil {
		return nil, err
	}
	return local(p.subscriber, answer)
}

func protocol(pc *webrtc.PeerConnection) string {
	sctp := pc.SCTP()
	if sctp == nil || sctp.Transport() == nil {
		return ""
	}
	pair, err := sctp.Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return ""
	}
	return pair.Remote.Protocol.String()
}

func (p *peer) stats() any {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	all := map[string]received{}
	for id, r := range p.received {
		all[id] = *r
	}
	return map[string]any{
		"received": all,
		"connections": map[string]string{
			"publisher":  p.publisher.ConnectionState().String(),
			"subscriber": p.subscriber.ConnectionState().String(),
		},
		"protocols": []string{protocol(p.publisher), protocol(p.subscriber)},
	}
}

func (p *peer) answer(a ask) (any, error) {
	switch a.Do {
	case "tracks":
		return p.tracks()
	case "offer":
		return p.offer()
	case "answered":
		return nil, p.publisher.SetRemoteDescription(
			webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: a.SDP})
	case "subscribe":
		return p.subscribe(a.SDP)
	case "stats":
		return p.stats(), nil
	case "close":
		return nil, errors.Join(p.publisher.Close(), p.subscriber.Close())
	}
	return nil, fmt.Errorf("no such thing: %q", a.Do)
}

func main() {
	p, err := newPeer(len(os.Args) > 1 && os.Args[1] == "tcp")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var a ask
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		answer, err := p.answer(a)
		reply := map[string]any{"id": a.ID, "answer": answer}
		if err != nil {
			reply = map[string]any{"id": a.ID, "error": err.Error()}
		}
		if err := out.Encode(reply); err != nil {
			os.Exit(1)
		}
	}
	close(p.end)
}
