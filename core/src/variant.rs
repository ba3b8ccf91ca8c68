//! Which of a package's variants fits this device, and why not the others.
//!
//! Owns the rule. Must never look at the device itself: facts are passed in.

use std::fmt;

/// What a device has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Processor architecture in Kubernetes' spelling (`amd64`, `arm64`).
    pub architecture: String,
    /// Inference engines, best first.
    pub backends: Vec<Backend>,
    /// Accelerators.
    pub accelerators: Vec<String>,
}

/// An inference engine of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its name, such as `rten`.
    pub name: String,
    /// Model file formats that it loads, such as `onnx`.
    pub formats: Vec<String>,
}

/// What one variant asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Its name in the package.
    pub name: String,
    /// Format of its model file.
    pub format: String,
    /// Any one of these engines.
    pub backends: Vec<String>,
    /// Any one of these architectures; empty means any.
    pub architectures: Vec<String>,
    /// This accelerator, if any.
    pub accelerator: Option<String>,
}

/// What was chosen, and what was passed over before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Place in the package's list.
    pub index: usize,
    /// The device's engine that will load it.
    pub backend: String,
    /// Earlier variants that do not fit.
    pub passed_over: Vec<PassedOver>,
}

/// A variant that does not fit, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// The variant's name.
    pub variant: String,
    /// Why not.
    pub misfit: Misfit,
}

/// Why a variant does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It is for other processors.
    #[error("is for {wanted}, the device is {has}")]
    Architecture {
        /// What the variant asks for.
        wanted: String,
        /// What the device is.
        has: String,
    },
    /// It needs an accelerator that is not there.
    #[error("needs accelerator {0}")]
    Accelerator(String),
    /// None of its engines is there.
    #[error("needs backend {wanted}, the device has {has}")]
    Backend {
        /// What the variant asks for.
        wanted: String,
        /// What the device has.
        has: String,
    },
    /// Its engines are there, but do not load its format.
    #[error("no backend of the device loads format {0}")]
    Format(String),
}

/// No variant fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NoneFits(pub Vec<PassedOver>);

impl fmt::Display for NoneFits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no variant fits this device")?;
        for (index, PassedOver { variant, misfit }) in self.0.iter().enumerate() {
            let separator = if index == 0 { ": " } else { "; " };
            write!(f, "{separator}{variant} {misfit}")?;
        }
        Ok(())
    }
}

/// Chooses the first variant, in the author's order of preference, that fits the device.
///
/// # Errors
/// [`NoneFits`], with a reason for each.
pub fn choose(device: &Device, variants: &[Variant]) -> Result<Choice, NoneFits> {
    let mut passed_over = Vec::new();
    for (index, variant) in variants.iter().enumerate() {
        match fit(device, variant) {
            Ok(backend) => {
                return Ok(Choice {
                    index,
                    backend: backend.to_owned(),
                    passed_over,
                });
            }
            Err(misfit) => passed_over.push(PassedOver {
                variant: variant.name.clone(),
                misfit,
            }),
        }
    }
    Err(NoneFits(passed_over))
}

fn fit<'a>(device: &'a Device, variant: &Variant) -> Result<&'a str, Misfit> {
    let Variant {
        name: _,
        format,
        backends,
        architectures,
        accelerator,
    } = variant;
    if !architectures.is_empty() && !architectures.contains(&device.architecture) {
        return Err(Misfit::Architecture {
            wanted: architectures.join(" or "),
            has: device.architecture.clone(),
        });
    }
    if let Some(accelerator) = accelerator
        && !device.accelerators.contains(accelerator)
    {
        return Err(Misfit::Accelerator(accelerator.clone()));
    }
    let there: Vec<&Backend> = device
        .backends
        .iter()
        .filter(|backend| backends.contains(&backend.name))
        .collect();
    if there.is_empty() {
        let has: Vec<&str> = device.backends.iter().map(|it| it.name.as_str()).collect();
        return Err(Misfit::Backend {
            wanted: backends.join(" or "),
            has: has.join(", "),
        });
    }
    there
        .into_iter()
        .find(|backend| backend.formats.contains(format))
        .map(|backend| backend.name.as_str())
        .ok_or_else(|| Misfit::Format(format.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device {
            architecture: "arm64".into(),
            backends: vec![Backend {
                name: "rten".into(),
                formats: vec!["onnx".into()],
            }],
            accelerators: Vec::new(),
        }
    }

    fn variant(name: &str, change: impl Fn(&mut Variant)) -> Variant {
        let mut variant = Variant {
            name: name.into(),
            format: "onnx".into(),
            backends: vec!["rten".into()],
            architectures: Vec::new(),
            accelerator: None,
        };
        change(&mut variant);
        variant
    }

    #[test]
    fn the_first_that_fits_is_taken_and_the_others_say_why_not() {
        let variants = [
            variant("gpu", |it| it.accelerator = Some("nvidia".into())),
            variant("npu", |it| it.backends = vec!["openvino".into()]),
            variant("cpu", |_| {}),
            variant("later", |_| {}),
        ];
        let choice = choose(&device(), &variants).unwrap();
        assert_eq!((choice.index, choice.backend.as_str()), (2, "rten"));
        let words: Vec<String> = choice
            .passed_over
            .iter()
            .map(|it| it.misfit.to_string())
            .collect();
        assert_eq!(
            words,
            [
                "needs accelerator nvidia",
                "needs backend openvino, the device has rten"
            ]
        );
    }

    #[test]
    fn a_device_that_nothing_fits_says_so_for_each() {
        let variants = [
            variant("intel", |it| it.architectures = vec!["amd64".into()]),
            variant("lite", |it| it.format = "tflite".into()),
        ];
        let error = choose(&device(), &variants).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no variant fits this device: intel is for amd64, the device is arm64; \
             lite no backend of the device loads format tflite"
        );
    }
}
