//! Why a source did not give a file, and whose fault that is.

use crate::{
    dag::{CarError, DagError, SpoolError},
    files::is_away,
};
use reqwest::StatusCode;
use std::io;

/// Why a source did not give a file.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is not there, or the connection broke.
    #[error("{0}")]
    Connection(#[from] reqwest::Error),
    /// It answered that it has none, or something else than an answer.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// It did not begin an answer in time.
    #[error("it did not answer in time")]
    Late,
    /// It went on sending nothing.
    #[error("it stopped sending")]
    Stalled,
    /// It went on sending next to nothing.
    #[error("it sends too slowly")]
    Slow,
    /// It took too long altogether.
    #[error("it took too long")]
    Long,
    /// It sent more than is taken.
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    /// It sent something else than what was asked for.
    #[error("what it sent is {0}")]
    Wrong(String),
    /// It has not all blocks.
    #[error("it does not have the block {0}")]
    Missing(String),
    /// Its archive cannot be read.
    #[error(transparent)]
    Archive(#[from] CarError),
    /// It sent blocks without end, or the disk is full.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The file or folder itself is not one that is taken.
    #[error(transparent)]
    Unfit(#[from] DagError),
    /// The system refuses.
    #[error("the disk: {0}")]
    Disk(#[from] io::Error),
}

/// Whose fault it is, and so what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The source's: another one may have it.
    Source,
    /// That of whoever made the file: every block was right, so nobody has it any better.
    Content,
    /// Ours: nobody else is asked, and it is tried again later.
    Node,
}

impl Failure {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Connection(_)
            | Self::Status(_)
            | Self::Late
            | Self::Stalled
            | Self::Slow
            | Self::Long
            | Self::TooLarge(_)
            | Self::Wrong(_)
            | Self::Missing(_)
            | Self::Archive(_)
            | Self::Spool(SpoolError::TooLarge(_) | SpoolError::TooMany) => Fault::Source,
            Self::Unfit(_) => Fault::Content,
            Self::Spool(SpoolError::Disk(_)) | Self::Disk(_) => Fault::Node,
        }
    }

    /// True when it is the object store of the files that does not answer.
    pub(super) fn is_away(&self) -> bool {
        match self {
            Self::Disk(error) | Self::Spool(SpoolError::Disk(error)) => is_away(error),
            _ => false,
        }
    }

    /// True when a source that gives single blocks may still have what its archive lacked: it makes no archives, or broke one off.
    pub(super) fn is_partial(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Archive(CarError::Header(_) | CarError::CutOff))
    }
}
