//! Where a supervisor puts a monitor: on the monitor's command line.

use lexopt::{Arg::Long, ValueExt as _};
use std::{ffi::OsString, path::PathBuf};

const ID: &str = "id";
const CGROUP: &str = "cgroup";

/// What a monitor is outside of its namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The user and group id that it runs under: another for each monitor, and nobody else's. Takes root. None for the
    /// supervisor's own.
    pub id: Option<u32>,
    /// The folder of its control group (version 2). None for the supervisor's.
    pub cgroup: Option<PathBuf>,
}

impl Place {
    /// As arguments.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        if let Some(id) = self.id {
            arguments.extend([format!("--{ID}").into(), id.to_string().into()]);
        }
        if let Some(cgroup) = &self.cgroup {
            arguments.extend([format!("--{CGROUP}").into(), cgroup.into()]);
        }
        arguments
    }

    /// From arguments, all that are left.
    ///
    /// # Errors
    /// One that is not [`Self::arguments`]'s.
    pub fn parse(arguments: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut place = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long(ID) => place.id = Some(arguments.value()?.parse()?),
                Long(CGROUP) => place.cgroup = Some(arguments.value()?.into()),
                other => return Err(other.unexpected()),
            }
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_the_command_line() {
        for place in [
            Place::default(),
            Place { id: Some(524_288), cgroup: None },
            Place { id: Some(u32::MAX), cgroup: Some("/sys/fs/cgroup/a b/machine-1".into()) },
        ] {
            let parsed = Place::parse(&mut lexopt::Parser::from_args(place.arguments()));
            assert_eq!(parsed.expect("a place"), place);
        }
        for wrong in [&["--id", "root"][..], &["--id"], &["--id", "-1"], &["--name", "x"], &["x"]] {
            assert!(Place::parse(&mut lexopt::Parser::from_args(wrong)).is_err(), "{wrong:?}");
        }
    }
}
