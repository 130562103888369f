/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* BCC includes this name; our programs need nothing from it. */
