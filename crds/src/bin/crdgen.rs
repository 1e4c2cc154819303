//! Writes the chart's templates and `docs/api.md`.
//!
//! `crdgen [ROOT]`, where ROOT is the repository's top folder (default: the present one).

use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    let templates = root.join("charts/plenum-crds/templates");
    fs::create_dir_all(&templates)?;
    for file in plenum_crds::yaml::templates()? {
        fs::write(templates.join(file.name), file.content)?;
    }
    fs::write(root.join("docs/api.md"), plenum_crds::docs::markdown()?)?;
    Ok(())
}
