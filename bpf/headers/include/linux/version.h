/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef ENI53_LINUX_VERSION_H
#define ENI53_LINUX_VERSION_H
/*
 * The oldest kernel we run on. Only kprobes are tied to the running kernel's version, and we have
 * none; without these two names BCC's helpers.h does not parse.
 */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
#endif
