// What `throw` means in WebAssembly, where nothing is caught: the message is kept and the call traps. JavaScript reads the
// message and throws an Error with it (web/src/runtime.ts). The C++ standard library of wasi-libc was built without exceptions;
// where it would throw or give up, as when memory runs out, it calls one of the last two functions. Their own versions print
// to a terminal, which would be the module's only imports.
#include <stdio.h>
#include <string.h>

#include <exception>
#include <typeinfo>

namespace {

char text[512];

[[noreturn]] void trap_with(const char* message) {
    strncpy(text, message, sizeof(text) - 1);
    __builtin_trap();
}

[[noreturn]] void give_up(const char* format) {
    trap_with(strstr(format, "bad_alloc") ? "there is not enough memory" : format);
}

}  // namespace

extern "C" {

// The message of the last call that trapped; empty where it gave none.
__attribute__((export_name("message"))) const char* message() { return text; }

void* __cxa_allocate_exception(size_t) noexcept {
    alignas(16) static char room[256];  // the one exception that there will be
    return room;
}

// Everything that leanmatch throws is a std::exception without other base classes, so its address is that of one.
[[noreturn]] void __cxa_throw(void* thrown, std::type_info*, void* (*)(void*)) {
    trap_with(static_cast<const std::exception*>(thrown)->what());
}

[[noreturn]] void abort_message(const char* format, ...) { give_up(format); }

}

_LIBCPP_BEGIN_NAMESPACE_STD
[[noreturn]] void __libcpp_verbose_abort(const char* format, ...) { give_up(format); }
_LIBCPP_END_NAMESPACE_STD
