//! The last step of a container's init: finding its program and becoming it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};

use super::program;
use super::report::{Message, Report};

/// Stands in for `libcontainer`'s own, which needs a `PATH`, loses the order of the environment, and says what is wrong
/// in words that no client knows.
#[derive(Clone)]
pub(super) struct Payload {
    report: Report,
    /// As the specification has it.
    given: Rc<Vec<String>>,
    env: Rc<RefCell<Vec<String>>>,
}

impl Payload {
    pub(super) fn new(report: Report, given: Vec<String>) -> Self {
        Payload { report, given: Rc::new(given), env: Rc::default() }
    }
}

impl Executor for Payload {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let refuse = |text: String| {
            self.report.send(&Message::Reason(text.clone()));
            ExecutorValidationError::ArgValidationError(text)
        };
        let process = spec.process().as_ref().ok_or_else(|| refuse("no process".to_owned()))?;
        let args = process.args().as_deref().unwrap_or_default();
        let env = self.given.as_slice();
        let name = args.first().ok_or_else(|| refuse("no program".to_owned()))?;
        program::find(name, env).map_err(|error| refuse(error.to_string()))?;
        *self.env.borrow_mut() = program::environment(env, process.user().uid());
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The program gets its environment when it is executed; this process keeps its own, which it does not use.
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default();
        let env = self.env.borrow();
        let done = args.first().ok_or(ExecutorError::InvalidArg).and_then(|name| {
            program::find(name, &env)
                .and_then(|path| program::become_it(&path, args, &env))
                .map_err(|error| ExecutorError::Other(error.to_string()))
        });
        match done {
            Ok(never) => match never {},
            // Nobody listens any more; what is left is what a shell would do.
            Err(error) => {
                eprintln!("{error}");
                Err(error)
            }
        }
    }
}
