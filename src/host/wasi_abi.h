// The numbers and structures of WASI preview 1 (wasi_snapshot_preview1), as they lie in guest memory. Little endian,
// the layout of wasi-libc's wasi/api.h, which is generated from the witx files of the WASI repository.
#pragma once

#include <cstddef>
#include <cstdint>

namespace spore::host::wasi {

enum class Errno : uint32_t {
  kSuccess = 0,
  k2Big = 1,
  kAcces = 2,
  kAddrInUse = 3,
  kAddrNotAvail = 4,
  kAfNoSupport = 5,
  kAgain = 6,
  kAlready = 7,
  kBadf = 8,
  kBadMsg = 9,
  kBusy = 10,
  kCanceled = 11,
  kChild = 12,
  kConnAborted = 13,
  kConnRefused = 14,
  kConnReset = 15,
  kDeadlk = 16,
  kDestAddrReq = 17,
  kDom = 18,
  kDquot = 19,
  kExist = 20,
  kFault = 21,
  kFbig = 22,
  kHostUnreach = 23,
  kIdrm = 24,
  kIlseq = 25,
  kInProgress = 26,
  kIntr = 27,
  kInval = 28,
  kIo = 29,
  kIsConn = 30,
  kIsDir = 31,
  kLoop = 32,
  kMfile = 33,
  kMlink = 34,
  kMsgSize = 35,
  kMultihop = 36,
  kNameTooLong = 37,
  kNetDown = 38,
  kNetReset = 39,
  kNetUnreach = 40,
  kNfile = 41,
  kNoBufs = 42,
  kNoDev = 43,
  kNoEnt = 44,
  kNoExec = 45,
  kNoLck = 46,
  kNoLink = 47,
  kNoMem = 48,
  kNoMsg = 49,
  kNoProtoOpt = 50,
  kNoSpc = 51,
  kNoSys = 52,
  kNotConn = 53,
  kNotDir = 54,
  kNotEmpty = 55,
  kNotRecoverable = 56,
  kNotSock = 57,
  kNotSup = 58,
  kNoTty = 59,
  kNxio = 60,
  kOverflow = 61,
  kOwnerDead = 62,
  kPerm = 63,
  kPipe = 64,
  kProto = 65,
  kProtoNoSupport = 66,
  kPrototype = 67,
  kRange = 68,
  kRofs = 69,
  kSpipe = 70,
  kSrch = 71,
  kStale = 72,
  kTimedOut = 73,
  kTxtBsy = 74,
  kXdev = 75,
  kNotCapable = 76,
  kWaits = 0x1'0000,  // no guest sees it: the host function parks for PendingCall::operation, and is called again
};

using Rights = uint64_t;
namespace rights {
constexpr Rights kFdDatasync = 1ull << 0;
constexpr Rights kFdRead = 1ull << 1;
constexpr Rights kFdSeek = 1ull << 2;
constexpr Rights kFdFdstatSetFlags = 1ull << 3;
constexpr Rights kFdSync = 1ull << 4;
constexpr Rights kFdTell = 1ull << 5;
constexpr Rights kFdWrite = 1ull << 6;
constexpr Rights kFdAdvise = 1ull << 7;
constexpr Rights kFdAllocate = 1ull << 8;
constexpr Rights kPathCreateDirectory = 1ull << 9;
constexpr Rights kPathCreateFile = 1ull << 10;
constexpr Rights kPathLinkSource = 1ull << 11;
constexpr Rights kPathLinkTarget = 1ull << 12;
constexpr Rights kPathOpen = 1ull << 13;
constexpr Rights kFdReaddir = 1ull << 14;
constexpr Rights kPathReadlink = 1ull << 15;
constexpr Rights kPathRenameSource = 1ull << 16;
constexpr Rights kPathRenameTarget = 1ull << 17;
constexpr Rights kPathFilestatGet = 1ull << 18;
constexpr Rights kPathFilestatSetSize = 1ull << 19;
constexpr Rights kPathFilestatSetTimes = 1ull << 20;
constexpr Rights kFdFilestatGet = 1ull << 21;
constexpr Rights kFdFilestatSetSize = 1ull << 22;
constexpr Rights kFdFilestatSetTimes = 1ull << 23;
constexpr Rights kPathSymlink = 1ull << 24;
constexpr Rights kPathRemoveDirectory = 1ull << 25;
constexpr Rights kPathUnlinkFile = 1ull << 26;
constexpr Rights kPollFdReadwrite = 1ull << 27;
constexpr Rights kSockShutdown = 1ull << 28;
constexpr Rights kSockAccept = 1ull << 29;
constexpr Rights kAll = (1ull << 30) - 1;

// What makes sense for each type of file; the rest is taken away when one is opened.
constexpr Rights kDirectory = kFdFdstatSetFlags | kFdSync | kFdDatasync | kFdAdvise | kPathCreateDirectory |
                              kPathCreateFile | kPathLinkSource | kPathLinkTarget | kPathOpen | kFdReaddir |
                              kPathReadlink | kPathRenameSource | kPathRenameTarget | kPathFilestatGet |
                              kPathFilestatSetSize | kPathFilestatSetTimes | kFdFilestatGet | kFdFilestatSetTimes |
                              kPathSymlink | kPathRemoveDirectory | kPathUnlinkFile | kPollFdReadwrite;
constexpr Rights kRegularFile = kFdDatasync | kFdRead | kFdSeek | kFdFdstatSetFlags | kFdSync | kFdTell | kFdWrite |
                                kFdAdvise | kFdAllocate | kFdFilestatGet | kFdFilestatSetSize | kFdFilestatSetTimes |
                                kPollFdReadwrite;
// Without seek and tell: that is how wasi-libc's isatty() knows a terminal.
constexpr Rights kStream = kFdRead | kFdWrite | kFdFdstatSetFlags | kFdFilestatGet | kPollFdReadwrite;
constexpr Rights kSocket = kStream | kSockShutdown | kSockAccept;
}  // namespace rights

enum class FileType : uint8_t {
  kUnknown = 0,
  kBlockDevice,
  kCharacterDevice,
  kDirectory,
  kRegularFile,
  kSocketDgram,
  kSocketStream,
  kSymbolicLink,
};

namespace fdflags {
constexpr uint16_t kAppend = 1, kDsync = 2, kNonblock = 4, kRsync = 8, kSync = 16, kAll = 31;
}
namespace oflags {
constexpr uint16_t kCreat = 1, kDirectory = 2, kExcl = 4, kTrunc = 8, kAll = 15;
}
namespace fstflags {
constexpr uint16_t kAtim = 1, kAtimNow = 2, kMtim = 4, kMtimNow = 8, kAll = 15;
}
constexpr uint32_t kLookupSymlinkFollow = 1;

enum class Whence : uint8_t { kSet = 0, kCur = 1, kEnd = 2 };
enum class EventType : uint8_t { kClock = 0, kFdRead = 1, kFdWrite = 2 };
enum class ClockId : uint32_t { kRealtime = 0, kMonotonic = 1, kProcessCpu = 2, kThreadCpu = 3 };
constexpr uint16_t kClockAbsolute = 1;
constexpr uint16_t kEventHangup = 1;
namespace riflags {
constexpr uint16_t kPeek = 1, kWaitAll = 2, kAll = 3;
}
constexpr uint16_t kDataTruncated = 1;
namespace sdflags {
constexpr uint8_t kRead = 1, kWrite = 2, kAll = 3;
}

struct Iovec {
  uint32_t buf = 0;
  uint32_t buf_len = 0;
};
static_assert(sizeof(Iovec) == 8);

struct Fdstat {
  uint8_t filetype = 0;
  uint8_t pad0 = 0;
  uint16_t flags = 0;
  uint32_t pad1 = 0;
  uint64_t rights_base = 0;
  uint64_t rights_inheriting = 0;
};
static_assert(sizeof(Fdstat) == 24 && offsetof(Fdstat, flags) == 2 && offsetof(Fdstat, rights_base) == 8);

struct Filestat {
  uint64_t dev = 0;
  uint64_t ino = 0;
  uint8_t filetype = 0;
  uint8_t pad[7] = {};
  uint64_t nlink = 0;
  uint64_t size = 0;
  uint64_t atim = 0;
  uint64_t mtim = 0;
  uint64_t ctim = 0;
};
static_assert(sizeof(Filestat) == 64 && offsetof(Filestat, filetype) == 16 && offsetof(Filestat, nlink) == 24);

struct Dirent {
  uint64_t next = 0;
  uint64_t ino = 0;
  uint32_t namlen = 0;
  uint8_t type = 0;
  uint8_t pad[3] = {};
};
static_assert(sizeof(Dirent) == 24 && offsetof(Dirent, type) == 20);

struct Prestat {
  uint8_t tag = 0;  // 0: a directory
  uint8_t pad[3] = {};
  uint32_t name_len = 0;
};
static_assert(sizeof(Prestat) == 8);

struct Subscription {
  uint64_t userdata = 0;
  uint8_t tag = 0;  // EventType
  uint8_t pad[7] = {};
  union {
    struct {
      uint32_t id;
      uint32_t pad;
      uint64_t timeout;
      uint64_t precision;
      uint16_t flags;
    } clock;
    struct {
      uint32_t fd;
    } readwrite;
    uint8_t raw[32] = {};
  };
};
static_assert(sizeof(Subscription) == 48 && offsetof(Subscription, clock) == 16);

struct Event {
  uint64_t userdata = 0;
  uint16_t error = 0;
  uint8_t type = 0;
  uint8_t pad0[5] = {};
  uint64_t nbytes = 0;
  uint16_t flags = 0;
  uint8_t pad1[6] = {};
};
static_assert(sizeof(Event) == 32 && offsetof(Event, type) == 10 && offsetof(Event, nbytes) == 16);

// WASI's number for one of the host's; kIo for one that it does not have.
Errno errno_of(int host_errno);

}  // namespace spore::host::wasi
