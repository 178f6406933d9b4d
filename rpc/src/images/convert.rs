//! Images.

use gantry_api::containerd::services::images::v1::Image as Proto;
use gantry_core::Result;
use gantry_core::images::Image;

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
