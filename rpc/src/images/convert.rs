//! Images.

use gantry_api::containerd::services::images::v1::Image as Proto;
use gantry_api::containerd::types::Descriptor;
use gantry_core::Result;
use gantry_core::images::{Image, ImageChange};

use crate::call::present;
use crate::{descriptor, timestamp};

pub(crate) fn from_proto(image: Option<Proto>) -> Result<Image> {
    let image = present(image, "image")?;
    Ok(Image {
        name: image.name,
        labels: image.labels,
        target: descriptor::from_proto(present(image.target, "image.target")?, "image.target")?,
        created_at: timestamp::or_epoch(image.created_at),
        updated_at: timestamp::or_epoch(image.updated_at),
    })
}

/// What an update asks for. The Go client sends an empty target where it changes labels only.
pub(crate) fn change_from_proto(image: Option<Proto>) -> Result<ImageChange> {
    let image = present(image, "image")?;
    let target = present(image.target, "image.target")?;
    let target = (target != Descriptor::default()).then(|| descriptor::from_proto(target, "image.target"));
    Ok(ImageChange { name: image.name, labels: image.labels, target: target.transpose()? })
}

pub(crate) fn change_to_proto(change: ImageChange) -> Proto {
    Proto {
        name: change.name,
        labels: change.labels,
        target: Some(change.target.map(descriptor::to_proto).unwrap_or_default()),
        ..Proto::default()
    }
}

pub(crate) fn to_proto(image: Image) -> Proto {
    Proto {
        name: image.name,
        labels: image.labels,
        target: Some(descriptor::to_proto(image.target)),
        created_at: Some(timestamp::to_proto(image.created_at)),
        updated_at: Some(timestamp::to_proto(image.updated_at)),
    }
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    #[test]
    fn what_is_absent_is_named() {
        assert_eq!(from_proto(None).unwrap_err().kind(), ErrorKind::InvalidArgument);
        let targetless = Proto { name: "n".into(), ..Proto::default() };
        let error = from_proto(Some(targetless)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("image.target"), "{error}");
    }
}
