//! The operations on an image that policies can be asked about.
//!
//! Source: Service Authorization Reference, Amazon EC2, actions with the resource type `image`.

use std::fmt;
use std::str::FromStr;

macro_rules! operations {
    ($($name:ident,)*) => {
        /// An operation of EC2 on an image that is there.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ImageOperation {
            $(#[doc = concat!("`", stringify!($name), "`.")] $name,)*
        }

        impl ImageOperation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name without the service.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

operations! {
    RunInstances,
    CancelImageLaunchPermission,
    CopyImage,
    CreateTags,
    DeleteTags,
    DeregisterImage,
    DescribeImageAttribute,
    DisableImage,
    DisableImageDeprecation,
    DisableImageDeregistrationProtection,
    EnableImage,
    EnableImageDeprecation,
    EnableImageDeregistrationProtection,
    ModifyImageAttribute,
    ResetImageAttribute,
    RestoreImageFromRecycleBin,
}

/// As policies write it: `ec2:RunInstances`.
impl fmt::Display for ImageOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ec2:{}", self.as_str())
    }
}

/// An action that is none of [`ImageOperation`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no action on an image; there are {known}", known = known())]
pub struct UnknownAction(pub String);

fn known() -> String {
    let names: Vec<String> = ImageOperation::ALL.iter().map(|o| o.to_string()).collect();
    names.join(", ")
}

/// Reads `<service>:<operation>`; without a service it is EC2's. As in policies, case does not count.
impl FromStr for ImageOperation {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let (service, operation) = text.split_once(':').unwrap_or(("ec2", text));
        let found = Self::ALL
            .iter()
            .copied()
            .find(|o| o.as_str().eq_ignore_ascii_case(operation));
        found
            .filter(|_| service.eq_ignore_ascii_case("ec2"))
            .ok_or_else(|| UnknownAction(text.chars().take(60).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_the_same_with_and_without_its_service() {
        for text in ["ec2:RunInstances", "RunInstances", "EC2:runinstances"] {
            assert_eq!(text.parse(), Ok(ImageOperation::RunInstances), "{text}");
        }
        for operation in ImageOperation::ALL {
            assert_eq!(operation.to_string().parse(), Ok(*operation));
        }
        for text in [
            "ec2:Bogus",
            "s3:RunInstances",
            "ec2:*",
            "",
            ":",
            "ec2:ec2:CopyImage",
        ] {
            let error = text.parse::<ImageOperation>().unwrap_err().to_string();
            assert!(error.contains("ec2:DeregisterImage"), "{text}: {error}");
        }
    }
}
