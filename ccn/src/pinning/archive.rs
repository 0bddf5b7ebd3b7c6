//! A file or folder as an archive of its blocks, as it is sent to the IPFS node: made while it is read, never as a whole in memory.

use crate::{
    dag::{
        car,
        cid::{Cid, Codec},
        layout::{Block, Layout, Shape},
    },
    files::Files,
    store::record::FileKind,
};
use bytes::Bytes;
use ccn_message::ItemHash;
use futures_util::stream;
use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
};
use tokio::sync::mpsc;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that are ready while one is being sent.
const MAX_PIECES: usize = 4;

/// An archive that is being made.
#[derive(Debug)]
pub(super) struct Archive {
    /// About how many bytes it will have.
    pub(super) bytes: u64,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

/// Opens the archive of a file or folder. None when its blocks cannot be made from what is here: it is gone, or was cut into blocks in a way of its own.
///
/// # Errors
/// The system refuses.
pub(super) async fn open(files: &Files, hash: &ItemHash, kind: FileKind) -> io::Result<Option<Archive>> {
    let Some((mut file, bytes)) = files.open_on_disk(hash, kind).await? else { return Ok(None) };
    if kind == FileKind::Directory {
        return Ok(Some(Archive::made_by(bytes, move |out| read(&mut file, |piece| out(piece.to_vec())))));
    }
    let Ok(root) = Cid::try_from(hash) else { return Ok(None) };
    let same = root.clone();
    let found = tokio::task::spawn_blocking(move || {
        let shape = shape(&mut file, &same)?;
        // It is read once more.
        file.rewind()?;
        Ok::<_, io::Error>((shape, file))
    });
    let (found, mut file) = found.await.map_err(io::Error::other)??;
    let Some(shape) = found else { return Ok(None) };
    Ok(Some(Archive::made_by(bytes, move |out| {
        out(car::header(&root))?;
        let (mut layout, mut failed) = (Layout::new(shape), Ok(()));
        let mut send = |(cid, block): Block| {
            // The last block may have another spelling of its name here; it is asked for by the one that it has in the archive.
            let cid = if cid.is_same_node(&root) { root.clone() } else { cid };
            if failed.is_ok() {
                failed = out([car::block_head(&cid, &block), block].concat());
            }
        };
        read(&mut file, |piece| {
            layout.push(piece, &mut send);
            Ok(())
        })?;
        layout.finish(&mut send);
        failed
    })))
}

/// How a file is cut into blocks that has that name; none where it is in none of the known ways.
fn shape(file: &mut File, root: &Cid) -> io::Result<Option<Shape>> {
    if root.codec() != Codec::DagPb {
        return Ok(None);
    }
    for shapes in [&Shape::USUAL[..], &Shape::FURTHER] {
        let mut layouts: Vec<Layout> = shapes.iter().map(|shape| Layout::new(*shape)).collect();
        file.rewind()?;
        read(file, |piece| {
            layouts.iter_mut().for_each(|layout| layout.push(piece, &mut |_| {}));
            Ok(())
        })?;
        let mut roots = layouts.into_iter().map(|layout| layout.finish(&mut |_| {}));
        if let Some(place) = roots.position(|name| name.is_same_node(root)) {
            return Ok(shapes.get(place).copied());
        }
    }
    Ok(None)
}

fn read(file: &mut File, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(()),
            length => take(&piece[..length])?,
        }
    }
}

impl Archive {
    /// Has it made on a thread that may block, as fast as it is taken.
    fn made_by(
        bytes: u64,
        make: impl FnOnce(&mut dyn FnMut(Vec<u8>) -> io::Result<()>) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(MAX_PIECES);
        tokio::task::spawn_blocking(move || {
            let mut out = |piece: Vec<u8>| {
                let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes it any more");
                sender.blocking_send(Ok(piece.into())).map_err(gone)
            };
            if let Err(error) = make(&mut out) {
                // An archive that is cut off is taken for none. Nobody may be there to hear why.
                let _ = sender.blocking_send(Err(error));
            }
        });
        Self { bytes, pieces }
    }

    /// As what is sent.
    pub(super) fn into_body(self) -> reqwest::Body {
        let next = |mut pieces: mpsc::Receiver<io::Result<Bytes>>| async {
            let piece = pieces.recv().await?;
            Some((piece, pieces))
        };
        reqwest::Body::wrap_stream(stream::unfold(self.pieces, next))
    }

    /// All of it.
    #[cfg(test)]
    async fn read(mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = self.pieces.recv().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::building;

    async fn put(files: &Files, bytes: &[u8], name: impl FnOnce(&crate::files::NewFile) -> ItemHash) -> ItemHash {
        // A CIDv1 of raw leaves is among its names where one was asked for.
        let asked = ItemHash::parse("bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby").expect("a CID");
        let mut writer = files.writer_of(&asked).await.expect("a file");
        writer.write(bytes).await.expect("a write");
        let file = writer.finish().await.expect("a file");
        let hash = name(&file);
        files.publish(file, &hash).await.expect("a name");
        hash
    }

    /// What is sent of a file of the network's usual names, read back from the name, is the file.
    #[tokio::test]
    async fn a_file_is_sent_as_the_blocks_of_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::open_folder(folder.path()).expect("a folder");
        for length in [0, 5, 300_000, 1_000_000] {
            let bytes: Vec<u8> = (0..length).map(|place: u32| ((place * 31) >> 3) as u8).collect();
            let v0 = put(&files, &bytes, |file| file.cid_v0.clone()).await;
            let spelling = put(&files, &bytes, |file| file.cid_v1[0].clone()).await;
            let mut names = vec![v0, spelling];
            if length > 256 << 10 {
                names.push(put(&files, &bytes, |file| file.cid_v1[1].clone()).await);
            }
            for name in names {
                let archive = open(&files, &name, FileKind::File).await.expect("no error").expect("an archive");
                let archive = archive.read().await.expect("an archive");
                files.remove(&name).expect("no error");
                let (root, followed) = building::follow(&files, &archive).await;
                assert_eq!((&root, followed.kind, followed.size), (&name, FileKind::File, u64::from(length)));
                followed.publish(&files).await.expect("a name");
                assert!(files.read(&name, 2_000_000).expect("no error") == Some(bytes.clone()), "{name}");
            }
        }
    }

    #[tokio::test]
    async fn a_folder_is_sent_as_it_is_and_what_was_cut_otherwise_is_not_sent() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::open_folder(folder.path()).expect("a folder");
        let archive = crate::testing::fixture("signed/files/folder.car");
        let (hash, followed) = building::follow(&files, &archive).await;
        followed.publish(&files).await.expect("a name");
        let sent = open(&files, &hash, FileKind::Directory).await.expect("no error").expect("an archive");
        let sent = sent.read().await.expect("an archive");
        let (again, followed) = building::follow(&files, &sent).await;
        assert_eq!((again, followed.kind), (hash, FileKind::Directory));

        let mut blocks = building::Blocks::default();
        let root = blocks.layout(b"cut into pieces of four bytes", 4, 3);
        let (hash, followed) = building::follow(&files, &blocks.archive(&root)).await;
        assert_eq!(followed.kind, FileKind::File);
        followed.publish(&files).await.expect("a name");
        assert!(open(&files, &hash, FileKind::File).await.expect("no error").is_none());
        files.remove(&hash).expect("no error");
        assert!(open(&files, &hash, FileKind::File).await.expect("no error").is_none());
    }
}
