//! Activations.

use gantry_api::containerd::types::{ActivationInfo, ActiveMount as ProtoActive};
use gantry_core::Result;
use gantry_core::mounts::{Activation, ActiveMount};

use crate::call::present;
use crate::{mount, timestamp};

pub(super) fn to_proto(activation: Activation) -> ActivationInfo {
    let active = |active: ActiveMount| ProtoActive {
        mount: mount::to_proto(vec![active.mount]).pop(),
        mounted_at: active.mounted_at.map(timestamp::to_proto),
        mount_point: active.mount_point,
        data: active.data,
    };
    ActivationInfo {
        name: activation.name,
        active: activation.active.into_iter().map(active).collect(),
        system: mount::to_proto(activation.system),
        labels: activation.labels,
    }
}

pub(super) fn from_proto(info: Option<ActivationInfo>) -> Result<Activation> {
    let info = present(info, "info")?;
    let active = |active: ProtoActive| {
        let mount = mount::from_proto(vec![present(active.mount, "info.active.mount")?]).pop();
        Ok(ActiveMount {
            mount: mount.unwrap_or_default(),
            mounted_at: active.mounted_at.map(|at| timestamp::or_epoch(Some(at))),
            mount_point: active.mount_point,
            data: active.data,
        })
    };
    Ok(Activation {
        name: info.name,
        active: info.active.into_iter().map(active).collect::<Result<_>>()?,
        system: mount::from_proto(info.system),
        labels: info.labels,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use gantry_core::mount::Mount;

    use super::*;

    #[test]
    fn an_activation_survives_the_wire() {
        let mount = |kind: &str| Mount {
            kind: kind.into(),
            source: "s".into(),
            target: "t".into(),
            options: vec!["ro".into(), "x=y".into()],
        };
        let activation = Activation {
            name: "a/b".into(),
            active: vec![
                ActiveMount {
                    mount: mount("loop"),
                    mounted_at: Some(UNIX_EPOCH + Duration::new(7, 9)),
                    mount_point: "/m".into(),
                    data: [("k".to_owned(), "v".to_owned())].into(),
                },
                ActiveMount::default(),
            ],
            system: vec![mount("overlay")],
            labels: [("l".to_owned(), "x".to_owned())].into(),
        };
        assert_eq!(from_proto(Some(to_proto(activation.clone()))).unwrap(), activation);
        let absent = ActivationInfo { active: vec![ProtoActive::default()], ..Default::default() };
        assert!(from_proto(Some(absent)).unwrap_err().message().contains("info.active.mount"));
    }
}
