//! Limits of what a package may contain: policy, checked on declared sizes before anything is fetched.

/// Bytes of one KiB, MiB, GiB.
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// How large a package and its parts may be. A device with less room sets less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The manifest itself.
    pub manifest_bytes_max: u64,
    /// The ModelPack config, and Rimward's package description, each.
    pub config_bytes_max: u64,
    /// The golden vectors' file.
    pub golden_bytes_max: u64,
    /// The guest module.
    pub module_bytes_max: u64,
    /// One file of weights.
    pub weight_bytes_max: u64,
    /// Everything together.
    pub package_bytes_max: u64,
    /// Layers of the manifest.
    pub layers_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes_max: MIB,
            config_bytes_max: 512 * KIB,
            golden_bytes_max: 32 * MIB,
            module_bytes_max: 64 * MIB,
            weight_bytes_max: 8 * GIB,
            package_bytes_max: 16 * GIB,
            layers_max: 40,
        }
    }
}
