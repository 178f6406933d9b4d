//! Kernel settings of a container: only those that its own namespaces keep to it.

use gantry_core::{Error, Result};

use crate::runtime::{LinuxNamespaceType, Spec};

/// Sets `key` for the container.
///
/// # Errors
/// `InvalidArgument` if the setting is not kept by a namespace, if the container shares that namespace with the host,
/// or if key or value could mean more than one setting.
pub fn set(spec: &mut Spec, key: &str, value: &str) -> Result<()> {
    let wrong = |why: &str| Error::invalid_argument(format!("sysctl {key:?}: {why}"));
    let plain = |text: &str, extra: &[u8]| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
    };
    if key.is_empty()
        || key.len() > 256
        || !plain(key, b"._-/")
        || key.split(['.', '/']).any(|part| part.is_empty())
    {
        return Err(wrong("not the name of a setting"));
    }
    if value.len() > 4096
        || !value.bytes().all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\t')
        || value.contains('+')
    {
        return Err(wrong("its value has characters that no setting has"));
    }
    // Source: the settings that namespaces(7) and the kernel's documentation call per namespace.
    let kept_by = match key.replace('/', ".").as_str() {
        "kernel.msgmax"
        | "kernel.msgmnb"
        | "kernel.msgmni"
        | "kernel.sem"
        | "kernel.shmall"
        | "kernel.shmmax"
        | "kernel.shmmni"
        | "kernel.shm_rmid_forced"
        | "kernel.msg_next_id"
        | "kernel.sem_next_id"
        | "kernel.shm_next_id" => LinuxNamespaceType::Ipc,
        "kernel.domainname" => LinuxNamespaceType::Uts,
        "kernel.hostname" => return Err(wrong("set the host name of the container instead")),
        other if other.starts_with("fs.mqueue.") => LinuxNamespaceType::Ipc,
        other if other.starts_with("net.") => LinuxNamespaceType::Network,
        _ => return Err(wrong("not kept by a namespace of the container")),
    };
    let own = super::linux(spec).namespaces().iter().flatten().any(|namespace| namespace.typ() == kept_by);
    if !own {
        return Err(wrong("the container shares that namespace with the host"));
    }
    super::linux(spec).sysctl_mut().get_or_insert_default().insert(key.to_owned(), value.to_owned());
    Ok(())
}
