// The border of the C interface: exceptions become statuses, structs of other versions become ours.
#pragma once

#include <cxxabi.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <string_view>

#include "error.h"

namespace janus {

// Keeps the message of this thread's last failure, for janus_message. Needs no memory.
void set_message(std::string_view message) noexcept;
const char *get_message() noexcept;

// Runs a call of the interface -> its status.
template <typename Call> janus_status guard(Call call) {
    try {
        call();
        return JANUS_OK;
    } catch (const Error &error) {
        set_message(error.message);
        return error.status;
    } catch (const std::bad_alloc &) {
        set_message("out of memory; ask for less at once, or use a machine with more");
        return JANUS_OUT_OF_MEMORY;
    } catch (const abi::__forced_unwind &) {
        throw; // pthread_cancel of the caller's thread, which must not be swallowed
    } catch (const std::exception &error) {
        set_message(error.what());
        return JANUS_ERROR;
    } catch (...) {
        set_message("a callback threw an exception; expected it to return 0 to stop");
        return JANUS_ERROR;
    }
}

// A struct of any version ends where a multiple of its alignment does.
template <typename Struct> void check_struct(const Struct *given, const char *name) {
    if (!given) throw Error(JANUS_VALUE, std::string(name) + " is null; expected a " + name);
    constexpr size_t largest = 1 << 16;
    if (given->struct_size < sizeof(size_t) || given->struct_size > largest || given->struct_size % alignof(Struct)) {
        throw Error(JANUS_VALUE, std::string("struct_size of ") + name + " is " + std::to_string(given->struct_size) +
                                     "; expected sizeof(" + name + ")");
    }
}

// A caller's struct as ours: what its version does not have keeps what `init` gives.
template <typename Struct> Struct read_struct(const Struct *given, void (*init)(Struct *, size_t), const char *name) {
    check_struct(given, name);
    Struct ours;
    init(&ours, sizeof ours);
    std::memcpy(&ours, given, std::min(given->struct_size, sizeof ours));
    return ours;
}

// Fills in as much of a caller's struct as its version has.
template <typename Struct> void write_struct(const Struct &ours, Struct *target) {
    const size_t size = target->struct_size;
    std::memcpy(target, &ours, std::min(size, sizeof ours));
    target->struct_size = size;
}

template <typename Struct> void clear_struct(Struct *target, size_t struct_size) {
    if (!target) return;
    std::memset(target, 0, struct_size);
    target->struct_size = struct_size;
}

template <typename Pointer> Pointer *require(Pointer *pointer, const char *name) {
    if (!pointer) throw Error(JANUS_VALUE, std::string(name) + " is null; expected a pointer");
    return pointer;
}

} // namespace janus
