// Whether the token kernels may use AMX's tiles.
#pragma once

#include <string>

#include "privkt/exponential.h"

namespace privkt {

// Why this process cannot use them, or nothing. Asks the system for them, once a process is enough.
std::string amx_reason();

// What is wrong with kernels that ought to give what others give, or nothing.
std::string differs_from(const TokenKernels &kernels, const TokenKernels &truth);

}  // namespace privkt
