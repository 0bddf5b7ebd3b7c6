//! A computation that any lost or doubled byte of memory would change: each step reads and writes one word of a region by a state
//! that depends on all steps before. It begins from a random seed, so that only who has this process's memory gets this result.

use std::{
    io::{self, Read as _, Write},
    sync::Mutex,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Words of the region: two MiB.
const WORDS: usize = 1 << 18;
/// Steps from when the program is about to listen until it is done, and steps between two lines on the console.
const STEPS: u64 = 40_000_000;
const SAID_EVERY: u64 = 4_000_000;
/// Steps between two looks at whether somebody asks.
const TURN: u64 = 10_000;

struct Chain {
    seed: u64,
    step: u64,
    state: u64,
    region: Vec<u64>,
}

static CHAIN: Mutex<Option<Chain>> = Mutex::new(None);
/// At which step it is done; known once the program listens.
static DONE_AT: AtomicU64 = AtomicU64::new(u64::MAX);

impl Chain {
    fn advance(&mut self) {
        // The steps of a 64-bit linear congruential generator (Knuth, MMIX), with the region in its way.
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = usize::try_from(self.state >> 46).unwrap_or(0) % WORDS;
        self.state ^= self.region[index];
        self.region[index] = self.state.rotate_left(17);
        self.step += 1;
    }
}

/// Begins in a thread of its own.
pub(crate) fn begin() -> io::Result<()> {
    let mut seed = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let seed = u64::from_le_bytes(seed);
    *CHAIN.lock().map_err(|_| io::Error::other("poisoned"))? =
        Some(Chain { seed, step: 0, state: seed, region: vec![0; WORDS] });
    std::thread::spawn(|| {
        while let Ok(mut chain) = CHAIN.lock()
            && let Some(chain) = chain.as_mut()
            && chain.step < DONE_AT.load(Ordering::Relaxed)
        {
            for _ in 0..TURN {
                chain.advance();
            }
            if chain.step.is_multiple_of(SAID_EVERY) {
                println!("chain {:016x} is at {} with {:016x}", chain.seed, chain.step, chain.state);
            }
        }
    });
    Ok(())
}

/// The program is about to listen.
pub(crate) fn listens() -> io::Result<()> {
    let chain = CHAIN.lock().map_err(|_| io::Error::other("poisoned"))?;
    if let Some(chain) = chain.as_ref() {
        DONE_AT.store(chain.step + STEPS, Ordering::Relaxed);
    }
    Ok(())
}

fn is_done() -> io::Result<bool> {
    let chain = CHAIN.lock().map_err(|_| io::Error::other("poisoned"))?;
    let chain = chain.as_ref().ok_or_else(|| io::Error::other("without CHAIN there is none"))?;
    Ok(chain.step >= DONE_AT.load(Ordering::Relaxed))
}

/// Once it is done: the seed, all its steps, the state, and the whole region.
pub(crate) fn answer(stream: &mut impl Write) -> io::Result<()> {
    while !is_done()? {
        std::thread::sleep(Duration::from_millis(10));
    }
    let chain = CHAIN.lock().map_err(|_| io::Error::other("poisoned"))?;
    let chain = chain.as_ref().ok_or_else(|| io::Error::other("without CHAIN there is none"))?;
    let head = format!("{:016x} {} {:016x}\n", chain.seed, chain.step, chain.state);
    let length = head.len() + chain.region.len() * 8;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{head}")?;
    let bytes: Vec<u8> = chain.region.iter().flat_map(|word| word.to_le_bytes()).collect();
    stream.write_all(&bytes)
}
