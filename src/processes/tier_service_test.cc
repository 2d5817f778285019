// The global tier through a link: a process's side against the host's, and against what a hostile process may send.
#include "processes/tier_service.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <random>
#include <thread>

#include "processes/host_line.h"
#include "processes/remote_tier.h"
#include "state/reference_tier.h"

namespace spore::processes {
namespace {

using namespace std::chrono_literals;
using state::Version;

state::Deadline soon() { return Clock::now() + 10s; }

// A host that answers, and a process that asks.
class RemoteTierTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    host_link_.emplace(UniqueFd(ends[0]), 0);
    link_.emplace(UniqueFd(ends[1]), kFrameDescriptorsMax);
    line_.emplace(*link_);
    tier_.emplace(*line_, "own");
    host_ = std::jthread([this](std::stop_token stop) {
      while (!stop.stop_requested()) {
        pollfd ready{host_link_->fd(), POLLIN, 0};
        if (::poll(&ready, 1, 20) != 1) continue;
        auto frame = host_link_->receive(kRequestBytesMax);
        if (!frame) return;
        if (!*frame) continue;
        auto answer = service_.answer(static_cast<RequestKind>((*frame)->body[0]), ByteSpan((*frame)->body).subspan(1));
        if ((*frame)->id) EXPECT_TRUE(host_link_->send(answer_frame((*frame)->id, std::move(answer))));
      }
    });
    reader_ = std::jthread([this](std::stop_token stop) {
      while (!stop.stop_requested()) {
        pollfd ready{link_->fd(), POLLIN, 0};
        if (::poll(&ready, 1, 20) != 1) continue;
        auto frame = link_->receive(UINT64_MAX);
        if (!frame) return;
        if (*frame) line_->delivered(std::move(**frame));
      }
    });
  }
  void TearDown() override {
    host_ = {};
    reader_ = {};
  }

  state::ReferenceTier store_;
  TierService service_{&store_, "own", 10'000ms};
  std::optional<Link> host_link_, link_;
  std::optional<HostLine> line_;
  std::optional<RemoteTier> tier_;
  std::jthread host_, reader_;
};

TEST_F(RemoteTierTest, DoesWhatTheStoreDoes) {
  const state::ValueId id{"own", "key"};
  const Bytes bytes(3'000'000, 7);
  const auto pushed = tier_->push(id, {.patches = {{.offset = 5, .bytes = bytes}}, .size_bytes = 4'000'000}, soon());
  ASSERT_TRUE(pushed) << pushed.error().message;
  EXPECT_FALSE(pushed->before.exists());
  EXPECT_EQ(pushed->after.size_bytes, 4'000'000u);
  EXPECT_EQ(tier_->describe(id, soon())->version, store_.describe(id, soon())->version);

  const auto snapshot = tier_->pin(id, soon());
  ASSERT_TRUE(snapshot);
  Bytes read(3'000'010);
  ASSERT_TRUE((*snapshot)->read(0, read, soon()));
  EXPECT_EQ(read[4], 0);
  EXPECT_EQ(read[5], 7);
  EXPECT_EQ(read[3'000'004], 7);
  EXPECT_EQ(read[3'000'005], 0);
  const std::vector<uint32_t> chunks = {0, 15};
  const auto changed = (*snapshot)->changed_pages(chunks, 0, soon());
  ASSERT_TRUE(changed);
  EXPECT_NE((*changed)[0], 0u);

  EXPECT_EQ(tier_->push(id, {.size_bytes = 1, .expected = Version{}}, soon()).error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(tier_->pin({"own", "none"}, soon()).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(tier_->push({"own", "log"}, {.append = as_bytes("abc")}, soon()));
  const auto page = tier_->list("own", "", "", 10, soon());
  ASSERT_TRUE(page);
  ASSERT_EQ(page->entries.size(), 2u);
  EXPECT_EQ(page->entries[1].key, "log");
  EXPECT_EQ(tier_->usage("own", soon())->keys, 2u);

  const auto lock = tier_->try_lock(id, state::LockMode::kWrite, "me", 10'000ms, soon());
  ASSERT_TRUE(lock && *lock);
  EXPECT_FALSE(*tier_->try_lock(id, state::LockMode::kWrite, "you", 10'000ms, soon()));
  EXPECT_TRUE(tier_->renew_lock(id, "me", 10'000ms, soon()));
  EXPECT_TRUE(tier_->unlock(id, "me", soon()));
  EXPECT_EQ(tier_->unlock(id, "me", soon()).error().code, ErrorCode::kFailedPrecondition);
  EXPECT_TRUE(tier_->remove(id, std::nullopt, soon()));
  EXPECT_EQ(tier_->describe(id, soon()).error().code, ErrorCode::kNotFound);
}

TEST_F(RemoteTierTest, AnotherTenantsStateCannotEvenBeAskedFor) {
  ASSERT_TRUE(store_.push({"other", "secret"}, {.append = as_bytes("theirs")}, soon()));
  EXPECT_EQ(tier_->describe({"other", "secret"}, soon()).error().code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(tier_->list("other", "", "", 10, soon()).error().code, ErrorCode::kPermissionDenied);
  // A process that leaves that check out: whatever key it sends is one of its own tenant's.
  for (const std::string& key : {std::string("secret"), std::string("other/secret"), std::string("../other/secret"),
                                 std::string("other\0secret", 12)}) {
    ByteWriter request;
    request.write(to_ns(soon()));
    request.write_text(key);
    const auto answer = service_.answer(RequestKind::kDescribe, request.bytes());
    ASSERT_FALSE(answer) << key;
    EXPECT_TRUE(answer.error().code == ErrorCode::kNotFound || answer.error().code == ErrorCode::kInvalidArgument);
  }
  ByteWriter request;
  request.write(to_ns(soon()));
  request.write_text("");
  request.write_text("");
  request.write<uint64_t>(1'000);
  const auto listed = service_.answer(RequestKind::kList, request.bytes());
  ASSERT_TRUE(listed);
  ByteReader in(*listed);
  EXPECT_EQ(in.read_text(), "");
  EXPECT_EQ(in.read<uint64_t>(), 0u);
}

TEST(TierService, RefusesReadsThatAreNotInTheValue) {
  state::ReferenceTier store;
  TierService service(&store, "own", 1'000ms);
  ASSERT_TRUE(store.push({"own", "k"}, {.append = as_bytes("0123456789")}, soon()));
  ByteWriter pin;
  pin.write(to_ns(soon()));
  pin.write_text("k");
  const auto pinned = service.answer(RequestKind::kPin, pin.bytes());
  ASSERT_TRUE(pinned);
  ByteReader in(*pinned);
  read_manifest(in);
  const auto number = in.read<uint64_t>();
  const auto read = [&](uint64_t snapshot, uint64_t offset, uint64_t size) {
    ByteWriter out;
    out.write(to_ns(soon()));
    out.write(snapshot);
    out.write(offset);
    out.write(size);
    return service.answer(RequestKind::kRead, out.bytes());
  };
  EXPECT_EQ(as_text(*read(number, 2, 3)), "234");
  EXPECT_EQ(read(number, 10, 0)->size(), 0u);
  for (const auto& [offset, size] : std::vector<std::pair<uint64_t, uint64_t>>{
           {0, 11}, {10, 1}, {11, 0}, {~0ull, 1}, {1, ~0ull}, {~0ull, ~0ull}, {0, 1ull << 40}, {5, kReadBytesMax + 1}})
    EXPECT_EQ(read(number, offset, size).error().code, ErrorCode::kInvalidArgument) << offset << " " << size;
  EXPECT_EQ(read(number + 1, 0, 1).error().code, ErrorCode::kFailedPrecondition);
}

TEST(TierService, HasABoundOfPinnedVersions) {
  state::ReferenceTier store;
  TierService service(&store, "own", 1'000ms);
  ASSERT_TRUE(store.push({"own", "k"}, {.append = as_bytes("x")}, soon()));
  ByteWriter pin;
  pin.write(to_ns(soon()));
  pin.write_text("k");
  for (size_t i = 0; i < TierService::kSnapshotsMax; ++i) ASSERT_TRUE(service.answer(RequestKind::kPin, pin.bytes()));
  EXPECT_EQ(service.answer(RequestKind::kPin, pin.bytes()).error().code, ErrorCode::kResourceExhausted);
}

// Requests that are almost right: each is answered, nothing breaks, and nobody else's values change.
TEST(TierService, SurvivesWhateverIsSent) {
  state::ReferenceTier store;
  TierService service(&store, "own", 50ms);
  ASSERT_TRUE(store.push({"other", "secret"}, {.append = as_bytes("theirs")}, soon()));
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto draw = [&](uint64_t below) { return std::uniform_int_distribution<uint64_t>(0, below - 1)(random); };
  const auto any_number = [&] {
    const uint64_t edges[] = {0, 1, 2, 4096, 1ull << 31, 1ull << 32, 1ull << 63, ~0ull, ~0ull - 4095};
    return draw(2) ? edges[draw(std::size(edges))] : draw(1'000);
  };
  for (int i = 0; i < 30'000; ++i) {
    ByteWriter request;
    request.write(draw(4) ? to_ns(Clock::now() + 50ms) : static_cast<int64_t>(any_number()));
    const auto kind = static_cast<RequestKind>(draw(static_cast<uint64_t>(kRequestKindMax) + 4));
    for (uint64_t part = draw(9); part > 0; --part) {
      switch (draw(4)) {
        case 0: request.write(any_number()); break;
        case 1: request.write_text(std::string(draw(30), 'k')); break;
        case 2: request.write(static_cast<uint8_t>(draw(256))); break;
        default: {
          ByteWriter push;
          write(push, state::Push{.patches = {{.offset = any_number(), .bytes = as_bytes("patch")}},
                                  .merge = static_cast<state::MergeOp>(draw(6)),
                                  .element = static_cast<state::Element>(draw(6)),
                                  .size_bytes = any_number()});
          const Bytes bytes = push.take();
          for (const uint8_t byte : ByteSpan(bytes).first(draw(bytes.size() + 1))) request.write(byte);
        }
      }
    }
    (void)service.answer(kind, request.bytes());
  }
  const auto theirs = store.pin({"other", "secret"}, soon());
  ASSERT_TRUE(theirs);
  Bytes bytes(6);
  ASSERT_TRUE((*theirs)->read(0, bytes, soon()));
  EXPECT_EQ(as_text(bytes), "theirs");
  EXPECT_EQ((*theirs)->manifest().version.number, 1u);
}

}  // namespace
}  // namespace spore::processes
