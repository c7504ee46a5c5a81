# WebAssembly by Clang 19 and wasi-libc: the runtime of web pages, and the checks under Node: scripts/wasm.sh.
# Clang runs wasm-opt of binaryen on what it links, and without it the file would be 18 kB larger.
# Debian, Ubuntu: apt install clang-19 lld-19 binaryen wasi-libc libclang-rt-19-dev-wasm32 libc++-19-dev-wasm32
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR wasm32)
if(DEFINED ENV{WASM_CXX})
  set(CMAKE_CXX_COMPILER "$ENV{WASM_CXX}")
else()
  set(CMAKE_CXX_COMPILER clang++-19)
endif()
set(CMAKE_CXX_COMPILER_TARGET wasm32-wasi)
set(CMAKE_CXX_COMPILER_WORKS TRUE) # a program of C++ exceptions links only with csrc/wasm/exceptions.cpp
set(CMAKE_EXECUTABLE_SUFFIX .wasm)
set(CMAKE_CXX_FLAGS_INIT "-msimd128 -mbulk-memory")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
if(DEFINED ENV{NODE})
  set(LEANMATCH_NODE "$ENV{NODE}")
else()
  set(LEANMATCH_NODE node)
endif()
set(CMAKE_CROSSCOMPILING_EMULATOR ${LEANMATCH_NODE} --no-warnings ${CMAKE_CURRENT_LIST_DIR}/../csrc/checks/run_wasm.mjs)
