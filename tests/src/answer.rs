//! What tests say of HTTP answers.

use anyhow::{Result, ensure};
use harness::http::Answer;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// An answer with that status, else an error that shows it.
pub(crate) fn expect(status: u16, answer: Answer) -> Result<Answer> {
    ensure!(answer.status == status, "{} instead of {status}: {}", answer.status, shown(&answer.text()));
    Ok(answer)
}

/// The JSON of an answer with that status.
pub(crate) fn expect_json(status: u16, answer: Answer) -> Result<Value> {
    expect(status, answer)?.json()
}

/// An error whose body has these words in it.
pub(crate) fn expect_words(status: u16, answer: Answer, words: &[&str]) -> Result<()> {
    let text = expect(status, answer)?.text();
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in {}", shown(&text));
    }
    Ok(())
}

/// Makes so many calls at once, each told its number; what they return, in that order, or the first error.
pub(crate) fn at_once<T: Send>(calls: usize, call: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let call = &call;
        let calls: Vec<_> = (0..calls).map(|number| scope.spawn(move || call(number))).collect();
        let answers: Vec<Result<T>> = calls
            .into_iter()
            .map(|call| call.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a call panicked"))))
            .collect();
        answers.into_iter().collect()
    })
}

/// The beginning of a text.
fn shown(text: &str) -> String {
    text.chars().take(2000).collect()
}

/// Sha256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// That many bytes that compress badly and are always the same.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = Sha256::digest(b"noise");
    while bytes.len() < length {
        bytes.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    bytes.truncate(length);
    bytes
}
