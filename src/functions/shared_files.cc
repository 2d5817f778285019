#include "functions/shared_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/fd.h"
#include "functions/function.h"

namespace spore::functions {

namespace {

namespace fs = std::filesystem;

constexpr size_t kPartBytesMax = 255;

Result<void> make_directories(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error || fs::is_directory(path)) return {};
  if (error == std::errc::not_a_directory || error == std::errc::file_exists)
    return fail(ErrorCode::kAlreadyExists, "a file is in the way of a directory");
  errno = error.value();
  return fail_errno("make a directory for shared files");
}

Result<void> check_names(std::string_view tenant, std::string_view path) {
  TRY(check_name_part("the tenant's name", tenant));
  return check_shared_path(path);
}

Result<void> write_whole(int file, ByteSpan bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t wrote = ::write(file, bytes.data() + done, bytes.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return fail_errno("write a shared file");
    done += static_cast<size_t>(wrote);
  }
  if (::fsync(file) != 0) return fail_errno("write a shared file");
  return {};
}

Result<void> synchronise_directory(const std::string& path) {
  const UniqueFd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || ::fsync(directory.get()) != 0) return fail_errno("write the directory of a shared file");
  return {};
}

SharedFile described(std::string path, const struct stat& info) {
  const auto since_epoch = std::chrono::seconds(info.st_mtim.tv_sec) + std::chrono::nanoseconds(info.st_mtim.tv_nsec);
  return {.path = std::move(path),
          .size_bytes = static_cast<uint64_t>(info.st_size),
          .changed_at = std::chrono::system_clock::time_point(
              std::chrono::duration_cast<std::chrono::system_clock::duration>(since_epoch))};
}

}  // namespace

Result<void> check_shared_path(std::string_view path) {
  const auto refuse = [](const std::string& why) {
    return fail(ErrorCode::kInvalidArgument, "the path of a shared file " + why);
  };
  if (path.empty()) return refuse("is empty");
  if (path.size() > kSharedPathBytesMax)
    return refuse("is longer than " + std::to_string(kSharedPathBytesMax) + " bytes");
  size_t parts = 0;
  for (size_t begin = 0; begin <= path.size(); ++parts) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty()) return refuse("has an empty part");
    if (part == "." || part == "..") return refuse("has a part \"" + std::string(part) + "\"");
    if (part.size() > kPartBytesMax)
      return refuse("has a part that is longer than " + std::to_string(kPartBytesMax) + " bytes");
    if (std::ranges::any_of(part, [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
      return refuse("has a control character");
    begin = end + 1;
  }
  if (parts > kSharedPathPartsMax) return refuse("has more than " + std::to_string(kSharedPathPartsMax) + " parts");
  return {};
}

Result<SharedFiles> SharedFiles::open(std::string directory) {
  std::error_code ignored;
  fs::remove_all(directory + "/incoming", ignored);
  TRY(make_directories(directory + "/incoming"));
  TRY(make_directories(directory + "/tenants"));
  return SharedFiles(std::move(directory));
}

std::string SharedFiles::place_of(std::string_view tenant, std::string_view path) const {
  std::string out = directory_ + "/tenants/" + std::string(tenant);
  if (!path.empty()) out += "/" + std::string(path);
  return out;
}

Result<bool> SharedFiles::put(std::string_view tenant, std::string_view path, ByteSpan bytes) {
  TRY(check_names(tenant, path));
  const std::string place = place_of(tenant, path);
  const std::string parent = place.substr(0, place.rfind('/'));
  const std::string incoming =
      directory_ + "/incoming/" + std::to_string(serial_.fetch_add(1, std::memory_order_relaxed));
  const UniqueFd file(::open(incoming.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.valid()) return fail_errno("make a shared file");
  const auto written = [&]() -> Result<bool> {
    TRY(write_whole(file.get(), bytes));
    TRY(make_directories(parent));
    struct stat before;
    const bool is_new = ::lstat(place.c_str(), &before) != 0;
    if (::rename(incoming.c_str(), place.c_str()) != 0) {
      if (errno == EISDIR) return fail(ErrorCode::kAlreadyExists, "there is a directory of that path");
      return fail_errno("put a shared file into its place");
    }
    TRY(synchronise_directory(parent));
    return is_new;
  }();
  if (!written) ::unlink(incoming.c_str());
  return written;
}

Result<SharedFile> SharedFiles::describe(std::string_view tenant, std::string_view path) const {
  TRY(check_names(tenant, path));
  struct stat info;
  if (::lstat(place_of(tenant, path).c_str(), &info) != 0 || !S_ISREG(info.st_mode))
    return fail(ErrorCode::kNotFound, "there is no such file");
  return described(std::string(path), info);
}

Result<Bytes> SharedFiles::get(std::string_view tenant, std::string_view path, uint64_t bytes_max) const {
  TRY(describe(tenant, path));
  return read_file(place_of(tenant, path), bytes_max);
}

Result<void> SharedFiles::remove(std::string_view tenant, std::string_view path) {
  TRY(describe(tenant, path));
  const std::string place = place_of(tenant, path);
  if (::unlink(place.c_str()) != 0) {
    if (errno == ENOENT) return fail(ErrorCode::kNotFound, "there is no such file");
    return fail_errno("remove a shared file");
  }
  return synchronise_directory(place.substr(0, place.rfind('/')));
}

Result<std::vector<SharedFile>> SharedFiles::list(std::string_view tenant, std::string_view below,
                                                  const std::optional<std::string>& after, size_t count_max) const {
  TRY(check_name_part("the tenant's name", tenant));
  if (!below.empty()) TRY(check_shared_path(below));
  std::vector<SharedFile> out;
  const std::string root = place_of(tenant, "");
  std::error_code error;
  fs::recursive_directory_iterator entry(place_of(tenant, below), error);
  if (error) return out;
  for (; entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (error) break;  // removed meanwhile
    std::string path = entry->path().string().substr(root.size() + 1);
    struct stat info;
    if ((after && path <= *after) || ::lstat(entry->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    out.push_back(described(std::move(path), info));
  }
  const size_t count = std::min(count_max, out.size());
  std::ranges::partial_sort(out, out.begin() + static_cast<ptrdiff_t>(count), {}, &SharedFile::path);
  out.resize(count);
  return out;
}

Result<std::string> SharedFiles::directory_of(std::string_view tenant, std::string_view below) const {
  TRY(check_name_part("the tenant's name", tenant));
  if (!below.empty()) TRY(check_shared_path(below));
  std::string out = place_of(tenant, below);
  TRY(make_directories(out));
  return out;
}

}  // namespace spore::functions
