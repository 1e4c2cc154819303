//! Everything that reads bytes of strangers, as functions of bytes: for `make fuzz`, and for the inputs of
//! worker/fuzz/corpus in a test.
//!
//! Owns the table of targets and what each asserts besides not panicking. Invariants: a target is a
//! function of its bytes alone (no clock, no randomness that changes its course), so that an input found
//! once fails for ever; a target takes any bytes.

mod messages;
mod packets;
mod session;

/// A target.
pub type Target = fn(&[u8]);

/// All of them by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("rtp", packets::rtp),
    ("rtcp", packets::rtcp),
    ("twcc", packets::twcc),
    ("feedback", packets::feedback),
    ("red", packets::red),
    ("frames", packets::frames),
    ("codec", packets::codec),
    ("vp8", packets::vp8),
    ("vp9", packets::vp9),
    ("dependency_descriptor", packets::dependency_descriptor),
    ("sdp", session::sdp),
    ("offer", session::offer),
    ("stun", session::stun),
    ("client_hello", session::client_hello),
    ("signal", messages::signal),
    ("protocol", messages::protocol),
];

/// The input in parts, each behind its length in one byte.
fn parts(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&len, rest) = data.split_first()?;
        let (part, rest) = rest.split_at(usize::from(len).min(rest.len()));
        data = rest;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Changed copies of each input; more of them find more: `PLENUM_FUZZ_MUTATIONS=100000`.
    const MUTATIONS: u64 = 100;

    struct Random(u64);

    impl Random {
        /// xorshift*
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n.max(1)
        }

        fn mutated(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
            let mut out = input.to_vec();
            for _ in 0..=self.below(4) {
                let at = self.below(out.len() + 1);
                let byte = [0, 1, 0x7F, 0x80, 0xFF, self.below(256) as u8][self.below(6)];
                match self.below(6) {
                    0 => out.truncate(at),
                    1 => out.insert(at, byte),
                    2 => drop(out.splice(at.., other[self.below(other.len() + 1)..].iter().copied())),
                    3 if at < out.len() => {
                        out.remove(at);
                    }
                    4 if at < out.len() => out[at] ^= 1 << self.below(8),
                    _ if at < out.len() => out[at] = byte,
                    _ => {}
                }
            }
            out
        }
    }

    /// What fuzzing found once stays found, every target has something to begin with, and what is close to
    /// it does no harm either.
    #[test]
    fn every_target_takes_its_corpus() {
        let more = std::env::var("PLENUM_FUZZ_MUTATIONS")
            .ok()
            .and_then(|n| n.parse().ok());
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let files = std::fs::read_dir(corpus.join(name)).unwrap();
            let mut paths: Vec<_> = files.map(|f| f.unwrap().path()).collect();
            paths.sort();
            assert!(!paths.is_empty(), "{name} has no corpus");
            let inputs: Vec<Vec<u8>> = paths.iter().map(|p| std::fs::read(p).unwrap()).collect();
            for input in &inputs {
                target(input);
                // Whatever stands at the end may be cut off.
                for end in 0..input.len().min(64) {
                    target(&input[..end]);
                }
                for _ in 0..more.unwrap_or(MUTATIONS) {
                    let other = &inputs[random.below(inputs.len())];
                    let changed = random.mutated(input, other);
                    if let Err(panic) = std::panic::catch_unwind(|| target(&changed)) {
                        eprintln!("{name}: {changed:02x?}");
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    }
}
