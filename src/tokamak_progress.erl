%% SPDX-License-Identifier: Apache-2.0
%% @doc Progress that does not drown its readers.
%%
%% Whoever works reports as often as it likes; who subscribed is sent the first value of a key at once,
%% then at most one an interval, the latest, and completion at once. A value that was held back is late by
%% an interval at most, and never lost. Keys are terms.
%%
%% A subscriber gets `{tokamak, Ref, {progress, Key, #{done, total, percent, status}}}'. The status is `done'
%% exactly when `done >= total', and then `percent' is 100; otherwise it is `running' and `percent' is rounded
%% down. After `done' the key is forgotten: another report of it begins anew. So is a key that nobody
%% reported for ten minutes.
%%
%% Operations report with `ctx.progress(done, total)': the key is the reference that {@link tokamak:async/2}
%% returned, or the callback id of a submitted call. Runs of {@link tokamak_pool} report under the key that
%% their option `progress' names.
-module(tokamak_progress).

-export([report/3, subscribe/1, subscribe/2, unsubscribe/1, stats/0]).

-include("tokamak_error.hrl").

-define(OPTIONS, #{interval => size}).

%% @doc Reports that `Done' of `Total' units of a key are done. Costs little when the value is held back, and never
%% waits. Without a subscriber, or while the application is stopped, it is not shown to anybody.
%%
%% ```
%% Ref = tokamak_progress:subscribe(my_key).
%% ok = tokamak_progress:report(my_key, 50, 200).
%% #{done := 50, total := 200, percent := 25, status := running} =
%%     receive {tokamak, Ref, {progress, my_key, First}} -> First end.
%% ok = tokamak_progress:report(my_key, 200, 200).
%% #{percent := 100, status := done} = receive {tokamak, Ref, {progress, my_key, Last}} -> Last end.
%% '''
-spec report(Key :: term(), Done :: non_neg_integer(), Total :: non_neg_integer()) -> ok.
report(Key, Done, Total) ->
    case tokamak_nif:progress_report(Key, Done, Total) of
        ok -> ok;
        badarg -> ?BADARG([Key, Done, Total], [term, units, units])
    end.

%% @equiv subscribe(Key, #{})
-spec subscribe(Key :: term() | all) -> Ref :: reference() | {error, shutdown}.
subscribe(Key) ->
    subscribe(Key, #{}).

%% @doc Subscribes the calling process to a key, or to all keys, until {@link unsubscribe/1} or its death.
%%
%% `interval': milliseconds between two updates of a key, otherwise the configured `progress_interval'
%% (100). `shutdown': the application does not run.
%%
%% ```
%% Ref = tokamak_progress:subscribe(all, #{interval => 1000}).
%% ok = tokamak_progress:report({my, key}, 1, 1).
%% done = receive {tokamak, Ref, {progress, {my, key}, #{status := Status}}} -> Status end.
%% '''
-spec subscribe(Key :: term() | all, #{interval => pos_integer()}) ->
    Ref :: reference() | {error, shutdown}.
subscribe(Key, Options) ->
    case tokamak_error:options(Options, ?OPTIONS) of
        ok -> tokamak_nif:progress_subscribe(keys(Key), maps:get(interval, Options, 0));
        error -> ?BADARG([Key, Options], [term, {options, ?OPTIONS}])
    end.

keys(all) -> [];
keys(Key) -> [Key].

%% @doc Ends a subscription of the calling process: no message of it is in the mailbox or comes any more.
%%
%% ```
%% Ref = tokamak_progress:subscribe(my_key).
%% ok = tokamak_progress:unsubscribe(Ref).
%% '''
-spec unsubscribe(reference()) -> ok.
unsubscribe(Ref) ->
    case tokamak_nif:progress_unsubscribe(Ref) of
        ok -> flush(Ref);
        not_owner -> ?NOT_OWNER([Ref]);
        badarg -> ?BADARG([Ref], [subscription])
    end.

flush(Ref) ->
    receive
        {tokamak, Ref, {progress, _, _}} -> flush(Ref)
    after 0 -> ok
    end.

%% @doc Counts keys that are not done, and subscribers; and since the application started: reports that were
%% shown, those held back (counted when the next value of their key is shown), and keys forgotten because
%% nobody reported them.
%%
%% ```
%% _ = tokamak_progress:subscribe(my_key).
%% ok = tokamak_progress:report(my_key, 1, 10).
%% #{keys := Keys, subscribers := Subscribers} = tokamak_progress:stats().
%% true = Keys >= 1 andalso Subscribers >= 1.
%% '''
-spec stats() -> #{
    keys := non_neg_integer(),
    subscribers := non_neg_integer(),
    shown := non_neg_integer(),
    held_back := non_neg_integer(),
    evicted := non_neg_integer()
}.
stats() ->
    tokamak_nif:progress_stats().
