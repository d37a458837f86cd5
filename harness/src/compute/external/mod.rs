//! A network that was not trained here, under attack.

mod attack;
mod entry;
mod network;

pub(crate) use self::attack::{AttackRequest, Done, attack_all, named_attacks};
pub(crate) use self::entry::{setting, threat};
pub(crate) use self::network::{External, NetworkFile};
