//! Analytic phantoms with exact projections.
