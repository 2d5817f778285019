// The decisions of the lock service: who waits, who holds, what the global tier is to be asked next. No threads, no
// clock and no store in here: LockService (state/locks.h) brings them, and its mutex.
//
//   LockTable { key and scope -> Entry { queue of waiting claims, held claims } }
//             { lane -> claims by the time of their next request to the global tier }
//
// A Claim is one wait for one lock and what becomes of it: waiting -> held -> giving back -> gone. Of a global lock it
// has a name of its own in the store, unlike those of all other claims of all hosts, so that a request that arrives
// late is never taken for one of a later claim. At most one request of a claim, and one question for a key, is under
// way.
#pragma once

#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "state/global_tier.h"
#include "state/lock_options.h"
#include "state/operation.h"

namespace spore::state {

class LockTable {
 public:
  struct Now {
    BootClock::time_point boot;  // leases
    Clock::time_point steady;    // deadlines
  };
  // Renewals have a lane of their own: no question that a store leaves unanswered holds them up.
  enum class Lane : uint8_t { kRenew, kAsk };
  struct Request {
    enum class Kind : uint8_t {
      kTryLock,
      kRenew,
      kUnlock,
      kLapse,  // end the lease at once, as if it had run out: the next is told that the holder died
    };
    Kind kind = Kind::kTryLock;
    uint64_t claim = 0;
    ValueId id;
    LockMode mode = LockMode::kRead;
    std::string name;               // the owner, as the store knows it
    BootClock::time_point sent_at;  // before it was sent
    std::chrono::milliseconds timeout{0};
  };
  using Answer = Result<std::optional<LockGrant>>;  // of other requests than kTryLock: nothing, or the error

  // `names_prefix`: of this service's names in the store, at most 16 bytes.
  LockTable(LockOptions options, std::string names_prefix, uint64_t seed);
  LockTable(const LockTable&) = delete;
  LockTable& operator=(const LockTable&) = delete;

  // As in LockService.
  std::shared_ptr<Operation> lock(const ValueId& id, LockMode mode, LockScope scope, const LockHolder& holder,
                                  Deadline deadline, Now now);
  Result<void> unlock(const ValueId& id, LockScope scope, const std::string& owner, Now now);
  void release_all(const std::string& owner, bool died, Now now);
  uint64_t token(const ValueId& id, const std::string& owner) const;
  bool lost(const ValueId& id, const std::string& owner, Now now);
  LockStats stats() const;

  // The next request that is due in this lane; finish() must follow, with what came of it.
  std::optional<Request> take(Lane lane, Now now);
  void finish(const Request& request, Answer answer, Now now);
  std::optional<BootClock::time_point> next_due(Lane lane) const;

  // Ends the waits whose deadline has come.
  void expire(Now now);
  std::optional<Deadline> next_deadline() const;
  // Ends all waits with this error.
  void end_waits(const Error& error, Now now);

  // What has come earlier than it was since the last time this was called.
  struct Wake {
    bool lanes[2] = {};
    bool deadline = false;
  };
  Wake take_wake() { return std::exchange(wake_, {}); }

 private:
  struct Key {
    ValueId id;
    LockScope scope = LockScope::kLocal;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const { return ValueIdHash()(key.id) * 2 + static_cast<size_t>(key.scope); }
  };
  using Due = std::pair<BootClock::time_point, uint64_t>;  // and the claim's number
  struct Claim;
  struct Entry {
    const Key* key = nullptr;
    std::deque<Claim*> queue;
    std::vector<Claim*> held;
    size_t live_readers = 0, live_writers = 0;  // of those held, the ones whose lease is not lost
    size_t releasing = 0;                       // claims that are being given back
    size_t claims = 0;                          // all
    bool asking = false;                        // a kTryLock is under way
    bool poisoned = false;                      // local
    std::list<Entry*>::iterator poisoned_at;
    // Global. Hosts take turns: one that has had the lock for a while leaves it alone for a moment.
    bool has_turn = false;
    BootClock::time_point turn_began, free_since, ask_not_before;
  };
  struct Claim {
    enum class State : uint8_t {
      kWaiting,
      kHeld,
      kReleasing,
      kResting,  // given back; keeps its entry for a moment, so that the turn is remembered
    };
    uint64_t number = 0;
    Entry* entry = nullptr;
    LockMode mode = LockMode::kRead;
    State state = State::kWaiting;
    std::string owner;
    std::vector<std::string> ancestors;
    Deadline deadline;  // of the wait
    Deadline until;     // no renewals from then on
    std::shared_ptr<Operation> operation;
    unsigned count = 1;     // a reader that asks again
    bool poisoned = false;  // as it was told
    bool in_turn = true;    // false: its ancestor has the lock, so that others who wait are waiting for this one too
    // Global.
    std::string name;
    uint64_t token = 0;
    BootClock::time_point lease_until;  // from then on there is nothing to renew or to give back
    BootClock::time_point ask_at;
    bool unanswered = false;  // the last question: it may be granted without our knowledge
    bool lost = false;
    bool died = false;
    bool in_flight = false;
    unsigned refusals = 0, failures = 0;  // in a row
    std::string failure;
    std::optional<Due> due;
    Lane lane = Lane::kAsk;
    bool due_suspect = false;
  };
  struct Tenant {
    size_t claims = 0;
    std::list<Entry*> poisoned;  // longest ago first
  };

  Claim* find(const Key& key, const std::string& owner) const;
  static bool excludes(LockMode one, LockMode other) { return one == LockMode::kWrite || other == LockMode::kWrite; }
  static bool compatible(const Entry& entry, LockMode mode);
  Result<void> check_bounds(const ValueId& id, const std::string& owner) const;
  Claim& make_claim(const Key& key);
  void forget(Claim& claim);
  void forget_if_idle(Entry& entry);
  void disown(Claim& claim);
  void poison(Entry& entry);
  void unpoison(Entry& entry);

  void grant(Claim& claim, Now now);
  void advance(Entry& entry, Now now);
  void stop_waiting(Claim& claim, Error error, Now now);
  void release(Claim& claim, bool died, Now now);
  void given_back(Claim& claim, Now now);
  bool check_lost(Claim& claim, Now now);
  void mark_lost(Claim& claim, Now now);

  void schedule(Claim& claim, BootClock::time_point at);
  void unschedule(Claim& claim);
  BootClock::duration backoff(unsigned times, std::chrono::milliseconds most);
  void answer_ask(Claim& claim, const Request& request, Answer answer, Now now);
  void answer_renewal(Claim& claim, const Request& request, const Answer& answer, Now now);

  const LockOptions options_;
  const std::string names_prefix_;
  std::minstd_rand random_;
  uint64_t last_number_ = 0;
  std::unordered_map<Key, Entry, KeyHash> entries_;
  std::unordered_map<uint64_t, Claim> claims_;
  std::unordered_map<std::string, std::vector<Claim*>> owners_;  // waiting and held
  std::unordered_map<std::string, Tenant> tenants_;
  std::set<std::pair<Deadline, uint64_t>> deadlines_;
  // By lane: claims whose last request failed come after the others, and never take all threads.
  struct Schedule {
    std::set<Due> healthy, suspect;
    unsigned suspects_in_flight = 0;
  };
  Schedule schedules_[2];
  Wake wake_;
  LockStats stats_;
};

}  // namespace spore::state
