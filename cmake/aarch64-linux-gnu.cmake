# Toolchain of scripts/arm.sh: a cross compiler, and an emulator that runs what it makes. Static, so that no AArch64
# library is needed at run time. AARCH64_CXX and QEMU_AARCH64 name other ones.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER $ENV{AARCH64_CXX})
if(NOT CMAKE_CXX_COMPILER)
  set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
endif()
set(CMAKE_CROSSCOMPILING_EMULATOR $ENV{QEMU_AARCH64})
if(NOT CMAKE_CROSSCOMPILING_EMULATOR)
  set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
endif()
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
