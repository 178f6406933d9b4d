//! What closures see of the database: statements, kept prepared, with gantry's errors.

use std::ops::Deref;
use std::path::Path;

use gantry_core::{Error, Result};
use rusqlite::types::FromSql;
use rusqlite::{Connection, Params};

use crate::fault::fault;

/// One row of an answer.
pub struct Row<'r> {
    row: &'r rusqlite::Row<'r>,
    path: &'r Path,
}

impl Row<'_> {
    /// The value of column `index`, counted from 0.
    ///
    /// # Errors
    /// `Internal` if the column is of another type.
    pub fn get<T: FromSql>(&self, index: usize) -> Result<T> {
        self.row.get(index).map_err(|error| fault(error, self.path))
    }
}

/// Reads within one transaction: everything it returns is of the same moment.
pub struct Reading<'c> {
    connection: &'c Connection,
    path: &'c Path,
}

impl<'c> Reading<'c> {
    pub(crate) fn new(connection: &'c Connection, path: &'c Path) -> Self {
        Reading { connection, path }
    }

    /// Calls `take` for each row of the answer, until it fails.
    ///
    /// # Errors
    /// Those of the statement and of `take`.
    pub fn each<P: Params>(
        &self,
        sql: &str,
        params: P,
        mut take: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let wrong = |error| fault(error, self.path);
        let mut statement = self.connection.prepare_cached(sql).map_err(wrong)?;
        let mut rows = statement.query(params).map_err(wrong)?;
        while let Some(row) = rows.next().map_err(wrong)? {
            take(&Row { row, path: self.path })?;
        }
        Ok(())
    }

    /// What `take` makes of each row.
    ///
    /// # Errors
    /// As [`Reading::each`].
    pub fn all<T, P: Params>(
        &self,
        sql: &str,
        params: P,
        mut take: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        self.each(sql, params, |row| {
            found.push(take(row)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// What `take` makes of the first row, if there is one.
    ///
    /// # Errors
    /// As [`Reading::each`].
    pub fn one<T, P: Params>(
        &self,
        sql: &str,
        params: P,
        take: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let wrong = |error| fault(error, self.path);
        let mut statement = self.connection.prepare_cached(sql).map_err(wrong)?;
        let mut rows = statement.query(params).map_err(wrong)?;
        match rows.next().map_err(wrong)? {
            Some(row) => take(&Row { row, path: self.path }).map(Some),
            None => Ok(None),
        }
    }

    /// Whether the answer has any row.
    ///
    /// # Errors
    /// As [`Reading::each`].
    pub fn exists<P: Params>(&self, sql: &str, params: P) -> Result<bool> {
        Ok(self.one(sql, params, |_| Ok(()))?.is_some())
    }
}

/// Writes, and reads, within the one write transaction.
pub struct Writing<'c>(Reading<'c>);

impl<'c> Writing<'c> {
    pub(crate) fn new(connection: &'c Connection, path: &'c Path) -> Self {
        Writing(Reading::new(connection, path))
    }

    /// Runs a statement and says how many rows it changed.
    ///
    /// # Errors
    /// `ResourceExhausted` if the disk is full; `Internal` for a constraint that does not hold.
    pub fn execute<P: Params>(&self, sql: &str, params: P) -> Result<usize> {
        let wrong = |error| fault(error, self.0.path);
        self.0.connection.prepare_cached(sql).map_err(wrong)?.execute(params).map_err(wrong)
    }

    /// Runs an `INSERT` and gives the new row's id.
    ///
    /// # Errors
    /// As [`Writing::execute`]; `Internal` if nothing was inserted.
    pub fn insert<P: Params>(&self, sql: &str, params: P) -> Result<i64> {
        if self.execute(sql, params)? != 1 {
            return Err(Error::internal("an insert that must add one row did not"));
        }
        Ok(self.0.connection.last_insert_rowid())
    }
}

impl<'c> Deref for Writing<'c> {
    type Target = Reading<'c>;

    fn deref(&self) -> &Reading<'c> {
        &self.0
    }
}
