# One object library per instruction set, from the same sources, each in a namespace of its own; dispatch.cpp chooses.

# No fast-math. Contraction is off: a fused multiply-add would round once where the stored product is rounded twice, and
# double-double arithmetic would break. The last two change no value: sqrt need not set errno, and selects may be
# computed on both sides, without which the loops over normals do not vectorise.
set(PRIVKT_MATH_OPTIONS
    "$<$<CXX_COMPILER_ID:GNU,Clang,AppleClang>:-ffp-contract=off;-fno-math-errno;-fno-trapping-math>"
    "$<$<CXX_COMPILER_ID:MSVC>:/fp:precise>")

set(PRIVKT_CPU_LIBRARIES "")
set(PRIVKT_CPU_DEFINITIONS "")

# dispatch_tokens.cpp chooses among one more instruction set
set(PRIVKT_TOKEN_SOURCES csrc/cpu/exponential.cpp csrc/cpu/flips.cpp csrc/cpu/nearest.cpp csrc/cpu/rejection.cpp
    csrc/cpu/tables.cpp)
set(PRIVKT_CPU_SOURCES csrc/cpu/discrete.cpp csrc/cpu/embeddings.cpp csrc/cpu/factors.cpp csrc/cpu/gram.cpp csrc/cpu/head.cpp
    csrc/cpu/noise.cpp csrc/cpu/products.cpp csrc/cpu/sums.cpp csrc/cpu/tied.cpp csrc/cpu/updates.cpp)

function(privkt_add_isa isa sources)
  add_library(privkt_cpu_${isa} OBJECT ${sources})
  target_include_directories(privkt_cpu_${isa} PRIVATE csrc/include)
  target_compile_definitions(privkt_cpu_${isa} PRIVATE PRIVKT_ISA=${isa})
  target_compile_options(privkt_cpu_${isa} PRIVATE ${PRIVKT_MATH_OPTIONS} "$<$<CXX_COMPILER_ID:GNU,Clang,AppleClang>:-O3>" ${ARGN})
  set(PRIVKT_CPU_LIBRARIES ${PRIVKT_CPU_LIBRARIES} privkt_cpu_${isa} PARENT_SCOPE)
endfunction()

set(PRIVKT_ALL_SOURCES "${PRIVKT_CPU_SOURCES};${PRIVKT_TOKEN_SOURCES}")
privkt_add_isa(scalar "${PRIVKT_ALL_SOURCES}")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang"
   AND NOT CMAKE_OSX_ARCHITECTURES MATCHES "arm64")
  privkt_add_isa(avx2 "${PRIVKT_ALL_SOURCES}" -mavx2 -mfma -mbmi2)
  set(PRIVKT_AVX512 -mavx2 -mfma -mbmi2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
  privkt_add_isa(avx512 "${PRIVKT_ALL_SOURCES}" ${PRIVKT_AVX512})
  privkt_add_isa(avx512vnni "${PRIVKT_TOKEN_SOURCES}" ${PRIVKT_AVX512} -mavx512vnni)
  list(APPEND PRIVKT_CPU_DEFINITIONS PRIVKT_HAS_X86=1)
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag("-mamx-tile -mamx-int8" PRIVKT_COMPILER_KNOWS_AMX)
  if(PRIVKT_COMPILER_KNOWS_AMX)
    privkt_add_isa(amx "${PRIVKT_TOKEN_SOURCES}" ${PRIVKT_AVX512} -mavx512vnni -mamx-tile -mamx-int8)
    list(APPEND PRIVKT_CPU_DEFINITIONS PRIVKT_HAS_AMX=1)
  endif()
endif()
