//! Writes every CustomResourceDefinition as YAML into a folder: `rimward-gen-crds DIR`.

use std::path::Path;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os()
        .nth(1)
        .context("usage: rimward-gen-crds DIR")?;
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    for crd in rimward_crds::schema::crds()? {
        let path = dir.join(format!("{}.yaml", crd.spec.names.plural));
        std::fs::write(&path, rimward_crds::schema::to_yaml(&crd)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
