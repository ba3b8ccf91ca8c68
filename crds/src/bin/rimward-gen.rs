//! Writes what is generated from the kinds into the repository: `rimward-gen ROOT` fills `crds/yaml` and
//! `docs/reference` below ROOT.

use std::path::Path;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let root = std::env::args_os()
        .nth(1)
        .context("usage: rimward-gen ROOT")?;
    let root = Path::new(&root);
    for crd in rimward_crds::schema::crds()? {
        let name = format!("crds/yaml/{}.yaml", crd.spec.names.plural);
        write(&root.join(name), &rimward_crds::schema::to_yaml(&crd)?)?;
    }
    for (name, text) in rimward_crds::reference::pages()? {
        write(&root.join("docs/reference").join(name), &text)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
