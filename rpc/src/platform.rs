//! Platforms.

use gantry_api::containerd::types::Platform as Proto;
use gantry_core::platforms::Platform;

pub(crate) fn from_proto(platform: Proto) -> Platform {
    Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: platform.os_features,
    }
}

pub(crate) fn to_proto(platform: Platform) -> Proto {
    Proto {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: platform.os_features,
    }
}
