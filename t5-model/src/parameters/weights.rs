//! A model's parameters, and where each module's is.

use std::collections::HashMap;

use super::module::{Module, Stack};
use super::table::{Parameter, parameters};
use crate::{Result, T5Config};

/// All parameters of a model.
pub(crate) struct Weights {
    /// Sorted by name.
    pub parameters: Vec<Parameter>,
    /// The output head; the embedding, if it is tied.
    pub head: Module,
    places: HashMap<Module, usize>,
}

impl Weights {
    pub fn new(config: &T5Config) -> Result<Self> {
        let mut parameters = parameters(config)?;
        parameters.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        let head = if config.tied_head() { Module::Embedding } else { Module::Head };
        let places = parameters.iter().map(|parameter| parameter.module).zip(0..).collect();
        Ok(Weights { parameters, head, places })
    }

    /// The place of a module's parameter. The table has every module of the configuration.
    pub fn place(&self, module: Module) -> usize {
        self.places[&module]
    }

    /// What a block computes with.
    pub fn of_block(&self, stack: Stack, block: usize) -> Vec<Module> {
        let own = self.modules().filter(|module| module.block() == Some((stack, block)));
        // Every block looks up the biases.
        own.chain((block > 0).then_some(Module::PositionBias(stack))).collect()
    }

    /// The modules of all parameters, in the order of these.
    pub fn modules(&self) -> impl Iterator<Item = Module> {
        self.parameters.iter().map(|parameter| parameter.module)
    }
}
