//! Media types: the only ones that a package or a signature may have.

/// `artifactType` of a package's manifest (CNCF ModelPack).
pub const MODEL_MANIFEST: &str = "application/vnd.cncf.model.manifest.v1+json";
/// Config object of a package (CNCF ModelPack).
pub const MODEL_CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
/// One raw file of weights (CNCF ModelPack).
pub const WEIGHT_RAW: &str = "application/vnd.cncf.model.weight.v1.raw";
/// The guest module.
pub const WASM: &str = "application/wasm";
/// Rimward's own description of the package.
pub const PACKAGE: &str = "application/vnd.rimward.package.v1+json";
/// Golden vectors, apart from [`PACKAGE`] so that the hub need not read them.
pub const GOLDEN: &str = "application/vnd.rimward.golden.v1+json";
/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A Sigstore bundle, as cosign v3 attaches it.
pub const SIGSTORE_BUNDLE_V03: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// A cosign v1/v2 signature payload.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Annotation that names the file of a layer (CNCF ModelPack).
pub const FILEPATH: &str = "org.cncf.model.filepath";
