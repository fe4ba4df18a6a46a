//! How many filters stand where (LIB-201): what is weak is bounded by the topic.

use crate::filter::cover::{Part, Plan, Route};

/// How many filters stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Found by key, nothing to check, or all but one value.
    pub(crate) exact: usize,
    /// Found by an equality, prefix, suffix or number, then checked.
    pub(crate) indexed: usize,
    /// Found by the presence of an attribute, then checked.
    pub(crate) presence: usize,
    /// May have to be looked at for each message.
    pub(crate) scan: usize,
    /// Never match or always do.
    pub(crate) constant: usize,
    /// Places in the index, over all filters.
    pub(crate) entries: usize,
}

/// By what a filter is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Exact,
    Indexed,
    Presence,
    Scan,
    Constant,
}

impl Counts {
    /// Filters that may have to be looked at for every message.
    pub(crate) fn weak(&self) -> usize {
        self.presence + self.scan
    }

    pub(super) fn of(&mut self, standing: Standing) -> &mut usize {
        match standing {
            Standing::Exact => &mut self.exact,
            Standing::Indexed => &mut self.indexed,
            Standing::Presence => &mut self.presence,
            Standing::Scan => &mut self.scan,
            Standing::Constant => &mut self.constant,
        }
    }
}

impl Standing {
    pub(super) fn of(plan: &Plan) -> Self {
        match &plan.route {
            Route::Never | Route::Always => Self::Constant,
            Route::AllBut(..) => Self::Exact,
            Route::Scan => Self::Scan,
            Route::Keys(_) if plan.residual.is_none() => Self::Exact,
            Route::Keys(keys) if keys.iter().any(|key| key.part == Part::Present) => Self::Presence,
            Route::Keys(_) => Self::Indexed,
        }
    }
}
