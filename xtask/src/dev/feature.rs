//! This package's features: what can be compiled in, and what requires it.

/// A feature, by its name in `Cargo.toml`.
#[derive(Debug)]
pub struct Feature {
    pub name: &'static str,
    pub is_built: bool,
    /// What it is, in a sentence that begins with "building".
    pub is: &'static str,
    /// The backend that it adds, or whose devices it adds.
    pub backend: Option<&'static str>,
    /// The prefix of its devices' names, if it adds a backend's devices.
    pub devices: Option<&'static str>,
    /// What else must be installed.
    pub needs: Option<&'static str>,
    /// How long it takes to build on two cores once everything else has been built.
    pub takes: &'static str,
}

/// A feature by its name, what it is, how long it takes, and what else there is to say.
macro_rules! feature {
    ($name:literal, $is:literal, $takes:literal $(, $field:ident: $value:literal)*) => {
        Feature {
            $($field: Some($value),)*
            ..plain($name, cfg!(feature = $name), $is, $takes)
        }
    };
}

const fn plain(name: &'static str, is_built: bool, is: &'static str, takes: &'static str) -> Feature {
    Feature { name, is_built, is, backend: None, devices: None, needs: None, takes }
}

pub const FEATURES: [Feature; 9] = [
    feature!("burn", "the backend burn", "five minutes", backend: "burn"),
    feature!("wgpu", "burn on GPUs through wgpu", "ten minutes", backend: "burn", devices: "wgpu",
        needs: "a driver of Vulkan or Metal"),
    feature!("cuda", "burn on GPUs through CUDA", "ten minutes", backend: "burn", devices: "cuda",
        needs: "CUDA; its build fetches LLVM from the network"),
    feature!("dfdx", "the backend dfdx", "two minutes", backend: "dfdx"),
    feature!("tch", "the backend tch", "three minutes", backend: "tch",
        needs: "libtorch 2.11.0, see `cargo xtask setup tch`"),
    feature!("hub", "access to the Hugging Face Hub and the web", "two minutes"),
    feature!("object-store", "access to object stores, and to text on the web", "three minutes"),
    feature!("parquet", "a reader of Parquet files", "two minutes"),
    feature!("webster", "the text builtin:webster", "two minutes"),
];

/// Features of the workspace that this program lacks.
pub fn missing() -> impl Iterator<Item = &'static Feature> {
    FEATURES.iter().filter(|feature| !feature.is_built)
}

/// Features that this program lacks for a backend and a device.
pub fn missing_for(backend: &str, device: Option<&str>) -> Option<&'static Feature> {
    let begins = |devices: &str| device.is_some_and(|device| device.split(':').next() == Some(devices));
    missing().find(|feature| feature.backend == Some(backend) && feature.devices.is_none_or(begins))
}

/// Features that need nothing but a compiler: the program with all of them is the one tested and packed.
pub fn self_contained() -> impl Iterator<Item = &'static str> {
    FEATURES.iter().filter(|feature| feature.needs.is_none()).map(|feature| feature.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_features_of_one_backend() {
        let is_missing = |backend, device| missing_for(backend, device).is_some();
        assert_eq!(is_missing("burn", Some("wgpu:1")), !cfg!(feature = "wgpu"));
        assert_eq!(is_missing("burn", Some("cuda:0")), !cfg!(feature = "cuda"));
        assert_eq!(is_missing("tch", Some("cuda:0")), !cfg!(feature = "tch"));
        assert_eq!(is_missing("dfdx", Some("wgpu:0")), !cfg!(feature = "dfdx"));
        if cfg!(feature = "burn") {
            assert!(!is_missing("burn", Some("cpu")) && !is_missing("burn", None));
            assert!(!is_missing("burn", Some("wgpux")));
        }
        assert!(!is_missing("unknown", Some("wgpu:0")));
    }

    #[test]
    fn all_of_the_manifest_are_known() {
        let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("a manifest");
        let features = manifest["features"].as_table().expect("features");
        let mut listed: Vec<&str> = features.keys().map(String::as_str).collect();
        let mut known: Vec<&str> = FEATURES.iter().map(|feature| feature.name).chain(["default"]).collect();
        listed.sort();
        known.sort();
        assert_eq!(listed, known);
    }
}
