//! Embeds the join page, built before from `sdk/page`.
//!
//! A build without Node.js must work, so where the page was not built, a small page that says so is
//! embedded in its place.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

const WITHOUT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Plenum</title>\
    <h1>This gateway was built without its join page</h1>\
    <p>Run <code>make page</code> and build again, or join with any LiveKit client.</p></html>";

fn main() -> io::Result<()> {
    let dist = Path::new(&env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?).join("../sdk/page/dist");
    // Cargo watches what exists: an empty directory is what a later `make page` changes.
    let _ = fs::create_dir_all(&dist);
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-changed=build.rs");

    let mut code = String::new();
    let index = dist.join("index.html");
    if index.is_file() {
        let _ = writeln!(
            code,
            "const INDEX_HTML: &[u8] = include_bytes!({:?});",
            index.canonicalize()?
        );
    } else {
        println!("cargo::warning=the join page is not built; run `make page` to embed it");
        let _ = writeln!(code, "const INDEX_HTML: &[u8] = {WITHOUT:?}.as_bytes();");
    }
    let _ = writeln!(code, "const ASSETS: &[(&str, &str, &[u8])] = &[");
    let mut files: Vec<_> = fs::read_dir(&dist)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let name = file.file_name().to_string_lossy().into_owned();
        let content_type = match name.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => continue,
        };
        let _ = writeln!(
            code,
            "    ({name:?}, {content_type:?}, include_bytes!({:?})),",
            file.path().canonicalize()?
        );
    }
    let _ = writeln!(code, "];");
    let out = Path::new(&env::var("OUT_DIR").map_err(io::Error::other)?).join("page.rs");
    fs::write(out, code)
}
