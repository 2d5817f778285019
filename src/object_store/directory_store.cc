#include "object_store/directory_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <optional>

namespace spore::object_store {
namespace {

namespace fs = std::filesystem;

constexpr size_t kFileNameBytesMax = 255;
// A put is tried again when a neighbour removed the folder, or the temporary file, between two of its steps.
constexpr int kAttemptsMax = 16;
constexpr const char* kTemporaryFolder = ".tmp";
constexpr const char* kLockFile = ".lock";

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("._-=@+,").find(c) != std::string_view::npos;
}

std::string encode(std::string_view segment) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (size_t i = 0; i < segment.size(); ++i) {
    const char c = segment[i];
    if (is_plain(c) && !(i == 0 && c == '.')) {
      out += c;
    } else {
      out += '%';
      out += kDigits[static_cast<unsigned char>(c) >> 4];
      out += kDigits[static_cast<unsigned char>(c) & 15];
    }
  }
  return out;
}

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// Nothing where the file name is not one of ours.
std::optional<std::string> decode(std::string_view file_name) {
  std::string out;
  for (size_t i = 0; i < file_name.size(); ++i) {
    if (file_name[i] != '%') {
      out += file_name[i];
      continue;
    }
    if (i + 2 >= file_name.size()) return std::nullopt;
    const int high = digit(file_name[i + 1]), low = digit(file_name[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high << 4 | low);
    i += 2;
  }
  if (out.empty() || encode(out) != file_name) return std::nullopt;
  return out;
}

Result<void> sync_folder(const fs::path& folder) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return fail_errno("fsync " + folder.string());
  return {};
}

Result<void> make_folder(const fs::path& folder) {
  if (::mkdir(folder.c_str(), 0700) == 0) return sync_folder(folder.parent_path());
  if (errno != EEXIST) return fail_errno("mkdir " + folder.string());
  return {};
}

// Removes the temporary files whose writers are gone.
void remove_leftovers(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const UniqueFd fd(::open(it->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd.valid() && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) ::unlink(it->path().c_str());
  }
}

struct Temporary {
  fs::path path;
  UniqueFd fd;
};

// A new locked file. Nobody removes it once the lock is held and its name still leads to it.
Result<Temporary> make_temporary(const fs::path& folder) {
  static std::atomic<uint64_t> next{0};  // names unique in this process
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    Temporary out{folder / (std::to_string(::getpid()) + "." + std::to_string(next++)), {}};
    out.fd = UniqueFd(::open(out.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!out.fd.valid()) {
      if (errno == EEXIST) continue;  // of an earlier process with our id
      return fail_errno("create " + out.path.string());
    }
    struct stat info{};
    if (::flock(out.fd.get(), LOCK_EX | LOCK_NB) == 0 && ::fstat(out.fd.get(), &info) == 0 && info.st_nlink > 0)
      return out;
  }
  return fail(ErrorCode::kInternal, "no temporary file could be made in " + folder.string());
}

}  // namespace

Result<std::unique_ptr<DirectoryStore>> DirectoryStore::open(fs::path root, Options options) {
  std::error_code error;
  root = fs::absolute(root, error).lexically_normal();
  if (error) return fail(ErrorCode::kInternal, "object store: " + error.message());
  if (!root.has_filename()) root = root.parent_path();
  fs::create_directories(root.parent_path(), error);
  if (error) return fail(ErrorCode::kInternal, "object store " + root.string() + ": " + error.message());
  TRY(make_folder(root));
  TRY(make_folder(root / kTemporaryFolder));
  UniqueFd lock;
  if (options.exclusive) {
    lock = UniqueFd(::open((root / kLockFile).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!lock.valid()) return fail_errno("open " + (root / kLockFile).string());
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
      return fail(ErrorCode::kUnavailable, "object store " + root.string() + " is in use by another process");
  }
  remove_leftovers(root / kTemporaryFolder);
  return std::unique_ptr<DirectoryStore>(new DirectoryStore(std::move(root), options, std::move(lock)));
}

DirectoryStore::DirectoryStore(fs::path root, Options options, UniqueFd lock)
    : root_(std::move(root)), options_(options), lock_(std::move(lock)) {}

Result<fs::path> DirectoryStore::path_of(std::string_view name) const {
  TRY(check_name(name));
  fs::path out = root_;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const auto file = encode(name.substr(begin, end - begin));
    if (file.size() > kFileNameBytesMax)
      return fail(ErrorCode::kInvalidArgument, "object name has a segment that is too long as a file name");
    out /= file;
    begin = end + 1;
  }
  return out;
}

Result<void> DirectoryStore::make_folders(const fs::path& folder) const {
  if (folder == root_) return {};
  if (::access(folder.c_str(), F_OK) == 0) return {};
  TRY(make_folders(folder.parent_path()));
  return make_folder(folder);
}

Result<void> DirectoryStore::put(std::string_view name, ByteSpan bytes) {
  ASSIGN_OR_RETURN(const fs::path path, path_of(name));
  if (bytes.size() > options_.object_bytes_max)
    return fail(ErrorCode::kResourceExhausted, std::string(name) + " is larger than the object store takes (" +
                                                   std::to_string(options_.object_bytes_max) + " bytes)");
  ASSIGN_OR_RETURN(Temporary temporary, make_temporary(root_ / kTemporaryFolder));
  const auto write = [&]() -> Result<void> {
    TRY(write_all(temporary.fd.get(), bytes));
    if (::fsync(temporary.fd.get()) != 0) return fail_errno("fsync");
    for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
      // A remove of the last neighbour may take the folder away at any moment.
      if (auto made = make_folders(path.parent_path()); !made) {
        if (made.error().code == ErrorCode::kNotFound) continue;
        return made;
      }
      if (::rename(temporary.path.c_str(), path.c_str()) == 0) return {};
      if (errno == EISDIR || errno == ENOTDIR || errno == ENOTEMPTY || errno == EEXIST)
        return fail(ErrorCode::kInvalidArgument, "an object's name is the beginning of another object's path");
      if (errno != ENOENT) return fail_errno("rename");
    }
    return fail(ErrorCode::kUnavailable, "its folder is being removed");
  };
  if (auto written = write(); !written) {
    ::unlink(temporary.path.c_str());
    return std::unexpected(std::move(written).error().within("store " + std::string(name)));
  }
  // The folder may be gone again if the object is: removed meanwhile by somebody else, which is durable by itself.
  auto synced = sync_folder(path.parent_path());
  if (!synced && synced.error().code == ErrorCode::kNotFound) return {};
  return synced;
}

Result<Bytes> DirectoryStore::get(std::string_view name, uint64_t size_max_bytes) {
  ASSIGN_OR_RETURN(const fs::path path, path_of(name));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid() && errno != ENOENT && errno != ENOTDIR) return fail_errno("open " + path.string());
  struct stat info{};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode))
    return fail(ErrorCode::kNotFound, "no object " + std::string(name));
  auto bytes = read_all(fd.get(), size_max_bytes);
  if (!bytes) return std::unexpected(std::move(bytes).error().within("object " + std::string(name)));
  return bytes;
}

Result<bool> DirectoryStore::exists(std::string_view name) {
  ASSIGN_OR_RETURN(const fs::path path, path_of(name));
  struct stat info{};
  if (::lstat(path.c_str(), &info) == 0) return S_ISREG(info.st_mode);
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return fail_errno("stat " + path.string());
}

Result<void> DirectoryStore::remove(std::string_view name) {
  ASSIGN_OR_RETURN(const fs::path path, path_of(name));
  if (::unlink(path.c_str()) != 0) {
    if (errno == ENOENT || errno == ENOTDIR || errno == EISDIR) return {};
    return fail_errno("remove " + path.string());
  }
  // Folders go with their last object; the deepest one that stays makes it durable.
  fs::path folder = path.parent_path();
  while (folder != root_ && ::rmdir(folder.c_str()) == 0) folder = folder.parent_path();
  auto synced = sync_folder(folder);
  if (!synced && synced.error().code == ErrorCode::kNotFound) return sync_folder(root_);
  return synced;
}

Result<std::vector<ObjectEntry>> DirectoryStore::list(std::string_view prefix) {
  // The folder that holds all that begins with the prefix.
  fs::path folder = root_;
  const size_t slash = prefix.rfind('/');
  std::string base;
  if (slash != std::string_view::npos) {
    ASSIGN_OR_RETURN(folder, path_of(prefix.substr(0, slash)));
    base = std::string(prefix.substr(0, slash + 1));
  }
  std::vector<ObjectEntry> out;
  std::vector<std::pair<fs::path, std::string>> waiting{{folder, base}};
  while (!waiting.empty()) {
    auto [path, name] = std::move(waiting.back());
    waiting.pop_back();
    std::error_code error;
    fs::directory_iterator it(path, error), end;
    // A folder that is not there (any more) holds nothing.
    if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) continue;
    for (; !error && it != end; it.increment(error)) {
      const std::string file = it->path().filename().string();
      if (path == root_ && file.starts_with('.')) continue;
      const auto segment = decode(file);
      if (!segment) continue;
      std::string full = name + *segment;
      struct stat info{};
      if (::lstat(it->path().c_str(), &info) != 0) continue;  // removed meanwhile
      if (S_ISDIR(info.st_mode) && (full.size() >= prefix.size() ? full.starts_with(prefix) : prefix.starts_with(full)))
        waiting.emplace_back(it->path(), full + "/");
      if (S_ISREG(info.st_mode) && full.starts_with(prefix))
        out.push_back({std::move(full), static_cast<uint64_t>(info.st_size)});
    }
    if (error) return fail(ErrorCode::kInternal, "list " + path.string() + ": " + error.message());
  }
  std::ranges::sort(out, {}, &ObjectEntry::name);
  return out;
}

}  // namespace spore::object_store
