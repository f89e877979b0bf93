//! One file per finding: when it opens, updates and closes, its sentence, its evidence, its remedy.
