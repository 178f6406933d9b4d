//! How a pull goes: bars on a terminal, lines elsewhere.
//!
//! The pull only notes what happened; drawing is done beside it, so a terminal that takes nothing holds up nobody.

use std::io::{IsTerminal as _, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_client::{PullEvent, PullItem};
use gantry_core::Digest;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often it is drawn.
pub(crate) const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How much of a digest is shown on a bar.
const SHORT_DIGEST_CHARS: usize = 12;

/// Where a piece of an image is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Fetching,
    Fetched,
    Unpacking,
    Done { existed: bool },
}

#[derive(Clone, Debug)]
struct Piece {
    item: PullItem,
    digest: Digest,
    total_bytes: u64,
    done_bytes: u64,
    stage: Stage,
}

impl Piece {
    fn message(&self) -> String {
        match self.stage {
            Stage::Waiting => "waiting".to_owned(),
            Stage::Fetching => format!("{} of {}", HumanBytes(self.done_bytes), HumanBytes(self.total_bytes)),
            Stage::Fetched => "fetched".to_owned(),
            Stage::Unpacking => "unpacking".to_owned(),
            Stage::Done { existed: true } => "there already".to_owned(),
            Stage::Done { existed: false } => format!("{} done", HumanBytes(self.total_bytes)),
        }
    }
}

fn noun(item: PullItem) -> &'static str {
    match item {
        PullItem::Index => "index",
        PullItem::Manifest => "manifest",
        PullItem::Config => "config",
        PullItem::Layer => "layer",
    }
}

/// What is known of a pull.
#[derive(Debug, Default)]
struct State {
    /// Whether layers are done only when they are unpacked.
    unpacks: bool,
    pieces: Vec<Piece>,
    /// Lines that were not printed yet.
    lines: Vec<String>,
}

impl State {
    fn take(&mut self, event: PullEvent) {
        match event {
            PullEvent::Resolved { target, host } => {
                self.lines.push(format!("resolved {} at {host}", target.digest));
            }
            PullEvent::Found { item, digest, total_bytes } => {
                if self.find(&digest).is_none() {
                    let piece = Piece { item, digest, total_bytes, done_bytes: 0, stage: Stage::Waiting };
                    self.pieces.push(piece);
                }
            }
            PullEvent::Progress { digest, done_bytes } => {
                if let Some(piece) = self.find(&digest) {
                    piece.done_bytes = done_bytes;
                    piece.stage = Stage::Fetching;
                }
            }
            PullEvent::Fetched { digest, existed } => self.fetched(&digest, existed),
            PullEvent::Unpacking { digest } => {
                if let Some(piece) = self.find(&digest) {
                    piece.stage = Stage::Unpacking;
                }
            }
            PullEvent::Unpacked { digest, existed, .. } => {
                if let Some(piece) = self.find(&digest) {
                    piece.stage = Stage::Done { existed };
                    let verb = if existed { "is unpacked already" } else { "unpacked" };
                    self.lines.push(format!("layer {digest} {verb}"));
                }
            }
        }
    }

    fn find(&mut self, digest: &Digest) -> Option<&mut Piece> {
        self.pieces.iter_mut().find(|piece| piece.digest == *digest)
    }

    fn fetched(&mut self, digest: &Digest, existed: bool) {
        let unpacks = self.unpacks;
        let Some(piece) = self.find(digest) else { return };
        piece.done_bytes = piece.total_bytes;
        piece.stage = match piece.stage {
            // Its snapshot was there, so nobody waited for it.
            done @ Stage::Done { .. } => done,
            _ if unpacks && piece.item == PullItem::Layer => Stage::Fetched,
            _ => Stage::Done { existed },
        };
        let verb = if existed { "is there already" } else { "fetched" };
        let line = format!("{} {digest} {verb} ({})", noun(piece.item), HumanBytes(piece.total_bytes));
        self.lines.push(line);
    }
}

/// Where plain lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lines {
    /// To standard output.
    Stdout,
    /// To standard error, where standard output is a process's.
    Stderr,
}

enum View {
    Bars(MultiProgress, Vec<ProgressBar>),
    Lines(Lines),
}

/// Shows how a pull goes.
pub(crate) struct Board {
    state: Arc<Mutex<State>>,
    view: View,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// Bars if standard error is a terminal, else lines.
    pub(crate) fn new(lines: Lines, unpacks: bool) -> Self {
        let view = if std::io::stderr().is_terminal() {
            View::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), Vec::new())
        } else {
            View::Lines(lines)
        };
        Board { state: Arc::new(Mutex::new(State { unpacks, ..State::default() })), view }
    }

    /// What the pull tells.
    pub(crate) fn listener(&self) -> Arc<dyn Fn(PullEvent) + Send + Sync> {
        let state = Arc::clone(&self.state);
        Arc::new(move |event| lock(&state).take(event))
    }

    /// Draws what has changed.
    pub(crate) fn draw(&mut self) {
        let (pieces, lines) = {
            let mut state = lock(&self.state);
            (state.pieces.clone(), std::mem::take(&mut state.lines))
        };
        match &mut self.view {
            View::Lines(target) => print(*target, &lines),
            View::Bars(all, bars) => {
                for piece in &pieces[bars.len()..] {
                    bars.push(all.add(new_bar(piece)));
                }
                for (piece, bar) in pieces.iter().zip(bars) {
                    update(bar, piece);
                }
            }
        }
    }

    /// Draws the end.
    pub(crate) fn finish(mut self) {
        self.draw();
        if let View::Bars(_, bars) = &self.view
            && !bars.is_empty()
        {
            bars.iter().filter(|bar| !bar.is_finished()).for_each(ProgressBar::abandon);
            // The cursor is left at the end of the last one.
            print(Lines::Stderr, &[String::new()]);
        }
    }
}

fn print(target: Lines, lines: &[String]) {
    for line in lines {
        // An image is as good when nobody reads how it came.
        let _ = match target {
            Lines::Stdout => writeln!(std::io::stdout(), "{line}"),
            Lines::Stderr => writeln!(std::io::stderr(), "{line}"),
        };
    }
}

fn new_bar(piece: &Piece) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:21} [{bar:30}] {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let short: String = piece.digest.hex().chars().take(SHORT_DIGEST_CHARS).collect();
    let bar = ProgressBar::hidden();
    bar.set_style(style);
    bar.set_length(piece.total_bytes.max(1));
    bar.set_prefix(format!("{:8} {short}", noun(piece.item)));
    bar
}

fn update(bar: &ProgressBar, piece: &Piece) {
    if bar.is_finished() {
        return;
    }
    match piece.stage {
        Stage::Done { .. } => bar.finish_with_message(piece.message()),
        _ => {
            bar.set_position(piece.done_bytes);
            bar.set_message(piece.message());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(character: char) -> Digest {
        Digest::parse(format!("sha256:{}", character.to_string().repeat(64))).unwrap()
    }

    fn layer(state: &mut State, character: char) -> Digest {
        let digest = digest(character);
        state.take(PullEvent::Found { item: PullItem::Layer, digest: digest.clone(), total_bytes: 2048 });
        digest
    }

    fn stage(state: &State) -> Stage {
        state.pieces[0].stage
    }

    #[test]
    fn a_layer_is_done_when_it_is_unpacked() {
        let mut state = State { unpacks: true, ..State::default() };
        let digest = layer(&mut state, 'a');
        assert_eq!(stage(&state), Stage::Waiting);
        state.take(PullEvent::Progress { digest: digest.clone(), done_bytes: 1024 });
        assert_eq!(state.pieces[0].message(), "1.00 KiB of 2.00 KiB");
        state.take(PullEvent::Fetched { digest: digest.clone(), existed: false });
        assert_eq!(stage(&state), Stage::Fetched);
        state.take(PullEvent::Unpacking { digest: digest.clone() });
        state.take(PullEvent::Unpacked { digest: digest.clone(), chain_id: digest.clone(), existed: false });
        assert_eq!(stage(&state), Stage::Done { existed: false });
        assert_eq!(
            state.lines,
            [format!("layer {digest} fetched (2.00 KiB)"), format!("layer {digest} unpacked")]
        );
    }

    #[test]
    fn a_layer_that_is_not_to_be_unpacked_is_done_when_it_is_fetched() {
        let mut state = State::default();
        let digest = layer(&mut state, 'a');
        state.take(PullEvent::Fetched { digest, existed: true });
        assert_eq!(stage(&state), Stage::Done { existed: true });
    }

    #[test]
    fn a_layer_that_is_unpacked_before_it_is_fetched_stays_done() {
        let mut state = State { unpacks: true, ..State::default() };
        let digest = layer(&mut state, 'a');
        state.take(PullEvent::Unpacked { digest: digest.clone(), chain_id: digest.clone(), existed: true });
        state.take(PullEvent::Fetched { digest, existed: true });
        assert_eq!(stage(&state), Stage::Done { existed: true });
    }

    #[test]
    fn a_layer_that_an_image_has_twice_is_shown_once() {
        let mut state = State::default();
        layer(&mut state, 'a');
        layer(&mut state, 'a');
        assert_eq!(state.pieces.len(), 1);
    }
}
