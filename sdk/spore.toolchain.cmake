# CMake toolchain for functions that run in Spore, with Debian's clang-19, wasi-libc and libc++ for wasm32:
#
#   cmake -S . -B build -DCMAKE_TOOLCHAIN_FILE=PATH/TO/sdk/spore.toolchain.cmake -DCMAKE_BUILD_TYPE=Release
#
# and in CMakeLists.txt
#
#   add_executable(hello hello.cc)
#   spore_function(hello)          # a reactor with SPORE_FUNCTION; leave it out for a program with main()
#
# The result is hello.wasm.
set(CMAKE_SYSTEM_NAME Generic)  # CMake knows no WASI
set(CMAKE_SYSTEM_PROCESSOR wasm32)
set(CMAKE_C_COMPILER clang-19)
set(CMAKE_CXX_COMPILER clang++-19)
set(CMAKE_C_COMPILER_TARGET wasm32-wasi)
set(CMAKE_CXX_COMPILER_TARGET wasm32-wasi)
set(CMAKE_AR llvm-ar-19)
set(CMAKE_RANLIB llvm-ranlib-19)
set(CMAKE_EXECUTABLE_SUFFIX .wasm)
set(CMAKE_EXECUTABLE_SUFFIX_C .wasm)
set(CMAKE_EXECUTABLE_SUFFIX_CXX .wasm)
if(NOT DEFINED CMAKE_CXX_STANDARD)
  set(CMAKE_CXX_STANDARD 23)  # spore.hpp needs 20
endif()
# Debian's libc++ for wasm32 is built without exceptions.
set(CMAKE_CXX_FLAGS_INIT "-fno-exceptions")
# Debug information is large and the host does not read it; the name section, which it shows in stack traces, goes with
# it: link with -Wl,--strip-debug instead to keep that.
set(CMAKE_EXE_LINKER_FLAGS_RELEASE_INIT "-s")
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
include_directories(SYSTEM ${CMAKE_CURRENT_LIST_DIR}/c ${CMAKE_CURRENT_LIST_DIR}/cpp)

function(spore_function target)
  target_link_options(${target} PRIVATE -mexec-model=reactor)
endfunction()
