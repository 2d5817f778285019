// A window: a file of the host's, mapped shared into a Faaslet's range above its linear memory, where the guest reads
// and writes it by ordinary loads and stores. Windows are placed downwards from 4 GiB (wasm/abi.h), each with at least
// 64 KiB below the next that nothing is mapped in, and are no part of memory.size.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/result.h"

namespace spore::faaslet {

// A guest that waits at a byte of a window's file (memory.atomic.wait). Gone, it waits no more.
class WindowWait {
 public:
  virtual ~WindowWait() = default;
  virtual bool woken() const = 0;
  virtual int fd() = 0;  // readable once it is woken
};

// What a window shows, and who wants to know where. Outlives the mapping; called by the thread that has the Faaslet.
class WindowSource {
 public:
  virtual ~WindowSource() = default;
  virtual int fd() const = 0;
  // After it was mapped at `at`, before the guest learns of it: on failure it is unmapped again, without unmapping().
  virtual Result<void> mapped(uint8_t* at, uint64_t size_bytes, bool writable) = 0;
  // Before it goes.
  virtual void unmapping(uint8_t* at) = 0;
  // Whether the next call of the same function may find it where this one left it.
  virtual bool reusable() const = 0;
  // Begins to wait at that byte of the file, if `as_expected` says so while nobody can notify. Else null.
  virtual std::unique_ptr<WindowWait> wait_at(uint64_t offset, const std::function<bool()>& as_expected) = 0;
  // Wakes at most `count` that wait there, longest first; how many.
  virtual uint32_t notify_at(uint64_t offset, uint32_t count) = 0;
};

constexpr size_t kWindowsMax = 256;  // of one Faaslet

struct Window {
  uint64_t offset = 0;      // from M: the guest's address; a multiple of 64 KiB
  uint64_t size_bytes = 0;  // whole pages of the machine
  bool writable = false;
  bool in_use = false;  // by the call that runs; others are left from earlier calls and go where they are in the way
  std::shared_ptr<WindowSource> source;
};

}  // namespace spore::faaslet
