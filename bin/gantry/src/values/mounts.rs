//! Mounts as people write them.

use std::path::{Path, PathBuf};

use gantry_oci::runtime::Mount;
use gantry_oci::spec;

/// Reads `type=bind,src=/host,dst=/inside,options=rbind:ro`.
///
/// Source: `ctr run --mount`.
pub(crate) fn mount(text: &str) -> Result<Mount, String> {
    let (mut kind, mut source, mut destination) = ("", "", "");
    let mut options = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| {
            format!("mount {text:?}: {field:?} is not key=value; write type=bind,src=/host,dst=/inside,options=rbind:ro")
        })?;
        match key.trim() {
            "type" => kind = value,
            "source" | "src" => source = value,
            "destination" | "dst" | "target" => destination = value,
            "options" => options.extend(value.split(':').filter(|option| !option.is_empty())),
            other => {
                return Err(format!(
                    "mount {text:?}: unknown key {other:?}; known are type, src, dst and options"
                ));
            }
        }
    }
    inside(text, destination)?;
    let is_bind = kind == "bind" || options.contains(&"bind") || options.contains(&"rbind");
    let source = if is_bind { on_host(text, source)? } else { PathBuf::from(source) };
    Ok(spec::mount(destination, kind, source, &options))
}

/// Reads `/host:/inside[:options]`: a recursive bind mount; the options are separated by commas.
pub(crate) fn volume(text: &str) -> Result<Mount, String> {
    let mut parts = text.split(':');
    let (Some(source), Some(destination)) = (parts.next(), parts.next()) else {
        return Err(format!("volume {text:?}: write /host:/inside or /host:/inside:ro"));
    };
    let mut options = vec!["rbind"];
    for option in parts.flat_map(|part| part.split(',')) {
        match option {
            "" => {}
            // Source: mount(8).
            "ro" | "rw" | "nosuid" | "nodev" | "noexec" | "private" | "rprivate" | "shared" | "rshared"
            | "slave" | "rslave" => options.push(option),
            other => return Err(format!("volume {text:?}: unknown option {other:?}")),
        }
    }
    inside(text, destination)?;
    Ok(spec::mount(destination, "bind", on_host(text, source)?, &options))
}

fn inside(text: &str, destination: &str) -> Result<(), String> {
    if destination.starts_with('/') {
        return Ok(());
    }
    Err(format!("mount {text:?}: the path inside, {destination:?}, must begin with /"))
}

/// A path of ours, which must mean the same to the daemon.
fn on_host(text: &str, source: &str) -> Result<PathBuf, String> {
    if source.starts_with(['/', '.']) {
        return std::path::absolute(Path::new(source)).map_err(|error| format!("mount {text:?}: {error}"));
    }
    Err(format!(
        "mount {text:?}: the source {source:?} must be a path that begins with / or .; there are no named volumes"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(mount: &Mount) -> (String, String, String, String) {
        (
            mount.destination().display().to_string(),
            mount.typ().clone().unwrap_or_default(),
            mount.source().clone().unwrap_or_default().display().to_string(),
            mount.options().clone().unwrap_or_default().join(","),
        )
    }

    fn owned(destination: &str, kind: &str, source: &str, options: &str) -> (String, String, String, String) {
        (destination.to_owned(), kind.to_owned(), source.to_owned(), options.to_owned())
    }

    #[test]
    fn mounts_are_read_as_ctr_writes_them() {
        let read = mount("type=bind,src=/a,dst=/b,options=rbind:ro").unwrap();
        assert_eq!(parts(&read), owned("/b", "bind", "/a", "rbind,ro"));
        let read = mount("type=tmpfs,source=tmpfs,target=/tmp").unwrap();
        assert_eq!(parts(&read), owned("/tmp", "tmpfs", "tmpfs", ""));
    }

    #[test]
    fn volumes_are_recursive_bind_mounts() {
        assert_eq!(parts(&volume("/a:/b").unwrap()), owned("/b", "bind", "/a", "rbind"));
        assert_eq!(parts(&volume("/a:/b:ro,nosuid").unwrap()), owned("/b", "bind", "/a", "rbind,ro,nosuid"));
        let here = std::env::current_dir().unwrap().join("data");
        assert_eq!(parts(&volume("./data:/b").unwrap()).2, here.display().to_string());
    }

    #[test]
    fn what_is_no_mount_says_why() {
        for (text, why) in [
            ("", "key=value"),
            ("type=bind,src=/a", "must begin with /"),
            ("type=bind,src=a,dst=/b", "named volumes"),
            ("type=bind,colour=red,dst=/b", "unknown key \"colour\""),
        ] {
            assert!(mount(text).unwrap_err().contains(why), "{text}");
        }
        for (text, why) in
            [("/a", "/host:/inside"), ("/a:b", "must begin"), ("a:/b", "named"), ("/a:/b:xx", "xx")]
        {
            assert!(volume(text).unwrap_err().contains(why), "{text}");
        }
    }
}
