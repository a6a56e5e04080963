//! How the worker gives up what it could do.

use std::error::Error;

use imsg_os::process::CHANNEL;
use nix::unistd::{self, Uid, User};

use crate::layers::Layers;

/// Gives up everything but the standard descriptors and the channel.
///
/// What the system cannot do is left out; what it can do and refuses is an error.
pub(crate) fn enter() -> Result<Layers, Box<dyn Error>> {
    let was_root = unistd::geteuid().is_root();
    let nobody = if was_root { Some(nobody()?) } else { None };
    // After the look-up, which may leave descriptors of its own.
    close_descriptors().map_err(|error| format!("cannot close descriptors: {error}"))?;
    if let Some(user) = nobody {
        become_user(&user).map_err(|error| format!("cannot become {}: {error}", user.name))?;
    }
    let mut layers = Layers {
        user: unistd::getuid().as_raw().into(),
        group: unistd::getgid().as_raw().into(),
        was_root: was_root.into(),
        ..Layers::default()
    };
    #[cfg(target_os = "linux")]
    linux::enter(&mut layers)?;
    Ok(layers)
}

fn nobody() -> Result<User, Box<dyn Error>> {
    Ok(User::from_name("nobody")?.ok_or("there is no user nobody")?)
}

fn become_user(user: &User) -> Result<(), Box<dyn Error>> {
    // The user last, as with root goes the right to change the others.
    #[cfg(not(target_vendor = "apple"))]
    unistd::setgroups(&[])?;
    unistd::setgid(user.gid)?;
    unistd::setuid(user.uid)?;
    if unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err("the way back to root is open".into());
    }
    Ok(())
}

fn close_descriptors() -> Result<(), Box<dyn Error>> {
    for number in descriptors()? {
        if number > CHANNEL {
            // The listing itself had a descriptor, which is closed already.
            let _ = unistd::close(number);
        }
    }
    Ok(())
}

/// The descriptors that may be open.
#[cfg(target_os = "linux")]
fn descriptors() -> Result<Vec<i32>, Box<dyn Error>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        numbers.push(name.to_str().ok_or("a name that is no number")?.parse()?);
    }
    Ok(numbers)
}

/// The descriptors that may be open.
#[cfg(not(target_os = "linux"))]
fn descriptors() -> Result<std::ops::Range<i32>, Box<dyn Error>> {
    let limit = unistd::sysconf(unistd::SysconfVar::OPEN_MAX)?.ok_or("there is no limit")?;
    Ok(0..limit.try_into()?)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;

    use landlock::{
        ABI, Access, AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr, RulesetError,
        RulesetStatus, Scope,
    };
    use nix::sys::prctl;
    use nix::sys::signal::Signal;

    use crate::layers::Layers;

    pub(super) fn enter(layers: &mut Layers) -> Result<(), Box<dyn Error>> {
        // A worker in the middle of an endless file does not notice that the channel was closed.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        prctl::set_no_new_privs()?;
        layers.no_new_privileges = prctl::get_no_new_privs()?.into();
        layers.landlock = restrict()?.into();
        Ok(())
    }

    /// Denies all that Landlock can deny, as no rule allows anything, and returns its version: 0
    /// when the kernel has none.
    fn restrict() -> Result<u32, RulesetError> {
        // What this kernel does not know of it is left out.
        const NEWEST: ABI = ABI::V10;
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?
            .restrict_self()?;
        Ok(match (status.ruleset, status.landlock) {
            (RulesetStatus::NotEnforced, _) => 0,
            (_, LandlockStatus::Available { effective_abi, .. }) => effective_abi as u32,
            _ => 0,
        })
    }
}
