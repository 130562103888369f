/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* BCC brings its own copy of the BPF user API; a second one would define every name twice. */
