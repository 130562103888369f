/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef ENI53_LINUX_KCONFIG_H
#define ENI53_LINUX_KCONFIG_H
/* BCC looks for this file to accept the tree, and for this option to declare the helpers. */
#define CONFIG_BPF_SYSCALL 1
#endif
