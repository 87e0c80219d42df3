// SPDX-License-Identifier: Apache-2.0
//! The parts of tokamak that know no BEAM.
