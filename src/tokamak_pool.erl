%% SPDX-License-Identifier: Apache-2.0
%% @doc Work that discovers work: crawls, dependency closures, directory trees.
%%
%% A run begins with some items. Its handler gives each a result and further items, the children. Of items
%% with the same key (`=:=') one is run; the run ends when nothing is left to do. Work and results pass
%% natively: workers in parallel, results in batches, of which `window' may be with the owner at a time.
%%
%% Handlers:
%% <dl>
%% <dt>`{op, Op}'</dt><dd>an operation of one argument that returns `{Result, [Child]}'. It runs in its
%% engine's own runtime, without Erlang. An eager one whose result is an integer and whose children are integers,
%% texts or paths, as `(u64, Vec<String>)', needs no terms for them, and is the fastest.</dd>
%% <dt>`fun((Item) -> {ok, Result, [Child]} | {error, Reason})'</dt><dd>runs in worker processes.</dd>
%% </dl>
%% An item's error is its result. Besides what handlers return: `{panic, Text}' of an operation, `{badarg,
%% Text}' when it takes no such item, `{crash, {Class, Reason, Stacktrace}}' of a function,
%% `{bad_return, _}' when what was returned is something else.
%%
%% Options:
%% <dl>
%% <dt>`workers'</dt><dd>how many items are in hand at a time, up to 16777216; by default as many as there are schedulers.
%% Of a function's worker processes those are started that find work</dd>
%% <dt>`key'</dt><dd>for functions: what makes two items the same; otherwise the item is its key</dd>
%% <dt>`on_error'</dt><dd>`skip' (the default), or `stop': the first error ends the run with `{error, {Item,
%% Reason}}'</dd>
%% <dt>`max_items'</dt><dd>the most items that are run; those beyond are counted as `refused'</dd>
%% <dt>`timeout'</dt><dd>milliseconds, after which the run ends with `{error, timeout}'; `infinity'</dd>
%% <dt>`progress'</dt><dd>a key of {@link tokamak_progress}: items done of items known so far</dd>
%% <dt>`window'</dt><dd>how many batches, of up to 256 results, may be with the owner; 16</dd>
%% <dt>`nodes'</dt><dd>connected nodes that share the run, see docs/scale.md; not with `max_items'</dd>
%% </dl>
%% The totals of a run: `dispatched' (items that were taken, each key once), `succeeded', `failed',
%% `duplicates' (left out because their key was seen before), `refused'.
%%
%% A run is its owner's: it is cancelled when the process dies that started it. docs/messages.md has the
%% messages of {@link start/3}.
-module(tokamak_pool).

-export([run/3, fold/5, start/3, ack/2, add/2, close/1, cancel/1]).
-export([is_pool/1, start_routed/2, add_prepared/2, stats_of/1]).

-include("tokamak_error.hrl").

-export_type([handler/0, options/0, stats/0, result/0]).

-type item() :: term().
-type handler() ::
    {op, tokamak:op()} | fun((item()) -> {ok, Result :: term(), [item()]} | {error, term()}).
-type result() :: {item(), {ok, term()} | {error, term()}}.
-type options() :: #{
    workers => pos_integer(),
    key => fun((item()) -> term()),
    on_error => skip | stop,
    max_items => pos_integer(),
    timeout => timeout(),
    progress => term(),
    window => pos_integer(),
    nodes => [node()]
}.
-type stats() :: #{
    dispatched := non_neg_integer(),
    succeeded := non_neg_integer(),
    failed := non_neg_integer(),
    duplicates := non_neg_integer(),
    refused := non_neg_integer()
}.

-define(OPTIONS, #{
    workers => limit,
    key => key_function,
    on_error => on_error,
    max_items => count,
    timeout => timeout,
    progress => term,
    window => size,
    nodes => nodes
}).
%% An operation's item is its key.
-define(NATIVE_OPTIONS, (maps:remove(key, ?OPTIONS))).
%% How many items are handed over in one native call.
-define(CUT, 500).

%% @doc Runs all items and returns their results, in the order in which they came. Waits until the run ends; the
%% option `timeout' (infinity) bounds that.
%%
%% ```
%% Halve = fun(N) -> {ok, N * N, [Half || Half <- [N div 2], Half > 0]} end.
%% {ok, Results, #{dispatched := 4, duplicates := 1}} = tokamak_pool:run(Halve, [10, 5], #{workers => 2}).
%% [{1, {ok, 1}}, {2, {ok, 4}}, {5, {ok, 25}}, {10, {ok, 100}}] = lists:sort(Results).
%% '''
-spec run(handler(), [item()], options()) -> {ok, [result()], stats()} | {error, term()}.
run(Handler, Seeds, Options) ->
    case check(Handler, Seeds, Options, [handler, list]) of
        ok -> run_all(Handler, Seeds, Options);
        Wrong -> ?WRONG([Handler, Seeds, Options], Wrong)
    end.

run_all(Handler, Seeds, Options) ->
    Collect = fun(Results, Batches) -> [Results | Batches] end,
    case fold_batches(Handler, Seeds, Collect, [], Options) of
        {ok, Batches, Stats} -> {ok, lists:append(lists:reverse(Batches)), Stats};
        {error, _} = Error -> Error
    end.

%% @doc Runs all items and folds their results: `Fun({Item, Result}, Acc)', in the calling process, while the run goes
%% on: a slow function makes it wait. An exception of the function cancels the run.
%%
%% ```
%% Directory = filename:join(code:lib_dir(stdlib), "include").
%% Add = fun({_Path, {ok, {file, Size, _Sha256}}}, Sum) -> Sum + Size; (_, Sum) -> Sum end.
%% {ok, Bytes, #{failed := 0}} = tokamak_pool:fold({op, index_file}, [Directory], Add, 0, #{}).
%% true = Bytes > 0.
%% '''
-spec fold(handler(), [item()], fun((result(), Acc) -> Acc), Acc, options()) ->
    {ok, Acc, stats()} | {error, term()}.
fold(Handler, Seeds, Fun, Acc, Options) when is_function(Fun, 2) ->
    case check(Handler, Seeds, Options, [handler, list, function, term]) of
        ok ->
            FoldBatch = fun(Results, Before) -> lists:foldl(Fun, Before, Results) end,
            fold_batches(Handler, Seeds, FoldBatch, Acc, Options);
        Wrong ->
            ?WRONG([Handler, Seeds, Fun, Acc, Options], Wrong)
    end;
fold(Handler, Seeds, Fun, Acc, Options) ->
    ?BADARG([Handler, Seeds, Fun, Acc, Options], [handler, list, function, term, {options, ?OPTIONS}]).

%% @doc Starts a run that stays open for more items until {@link close/1}. Does not wait for it.
%%
%% Its results come as `{tokamak, Ref, {results, [{Item, Result}]}}', each to be answered by {@link ack/2};
%% its end as `{tokamak, Ref, {finished, Stats}}' or `{tokamak, Ref, {error, Reason}}', also when the run is
%% refused.
%%
%% ```
%% Ref = tokamak_pool:start(fun(N) -> {ok, N + 1, []} end, [1], #{window => 4}).
%% receive {tokamak, Ref, {results, [{1, {ok, 2}}]}} -> ok = tokamak_pool:ack(Ref, 1) end.
%% ok = tokamak_pool:add(Ref, [2]).
%% receive {tokamak, Ref, {results, [{2, {ok, 3}}]}} -> ok = tokamak_pool:ack(Ref, 1) end.
%% ok = tokamak_pool:close(Ref).
%% #{dispatched := 2} = receive {tokamak, Ref, {finished, Stats}} -> Stats end.
%% {error, closed} = tokamak_pool:add(Ref, [3]).
%% '''
-spec start(handler(), [item()], options()) -> Ref :: reference().
start(Handler, Seeds, Options) ->
    case check(Handler, Seeds, Options, [handler, list]) of
        ok -> start_all(Handler, Seeds, Options);
        Wrong -> ?WRONG([Handler, Seeds, Options], Wrong)
    end.

start_all(Handler, Seeds, Options) ->
    {Ref, _Run} = begin_run(Handler, Options, undefined),
    try
        %% A run that ended takes no seeds, and says so by itself.
        _ = add_all(Ref, Seeds),
        Ref
    catch
        %% A key function that crashes: nobody would know of the run.
        Class:Reason:Stack ->
            ok = cancel(Ref),
            erlang:raise(Class, Reason, Stack)
    end.

%% @doc Lets `N' more batches of results come. The owner's only. Without it at most `window' batches come, and then the
%% workers wait. The example is that of {@link start/3}.
-spec ack(reference(), pos_integer()) -> ok.
ack(Ref, N) when is_reference(Ref), is_integer(N), N >= 1, N =< 16#7FFFFFFF ->
    case tokamak_pool_spread:find(Ref) of
        {ok, Coordinator, Owner} when Owner =:= self() -> tokamak_pool_spread:ack(Coordinator, N);
        {ok, _, _} -> ?NOT_OWNER([Ref, N]);
        error ->
            case in_pool(Ref, fun(Engine) -> Engine:op_pool_ack(Ref, N) end) of
                ok -> ok;
                not_owner -> ?NOT_OWNER([Ref, N]);
                badarg -> ?BADARG([Ref, N], [pool, size])
            end
    end;
ack(Ref, N) ->
    ?BADARG([Ref, N], [pool, size]).

%% @doc Adds items to a run, from any process of the node. Not all or nothing: of a long list a run that
%% closes meanwhile has taken a part. Items whose key was seen are counted as duplicates. The queue of items has no
%% bound but memory: what bounds it is the number of keys. The example is that of {@link start/3}.
-spec add(reference(), [item()]) -> ok | {error, closed}.
add(Ref, Items) ->
    case tokamak_error:options(#{pool => Ref, items => Items}, #{pool => pool, items => list}) of
        ok -> add_all(Ref, Items);
        error -> ?BADARG([Ref, Items], [pool, list])
    end.

%% @doc No more items are added: the run ends when it has run those it has and their children. Does not wait for that.
%% The example is that of {@link start/3}.
-spec close(reference()) -> ok.
close(Ref) ->
    case is_reference(Ref) andalso in_pool(Ref, fun(Engine) -> Engine:op_pool_close(Ref) end) of
        ok -> close_spread(tokamak_pool_spread:find(Ref));
        _ -> ?BADARG([Ref], [pool])
    end.

close_spread({ok, Coordinator, _Owner}) -> tokamak_pool_spread:close(Coordinator);
close_spread(error) -> ok.

%% @doc Ends a run: no message of it is in the mailbox or comes any more. The owner's only. What is being
%% run natively by a blocking operation goes on until it returns; worker processes are killed.
%%
%% ```
%% Ref = tokamak_pool:start(fun(N) -> timer:sleep(N), {ok, slept, []} end, [60000], #{}).
%% ok = tokamak_pool:cancel(Ref).
%% {error, closed} = tokamak_pool:add(Ref, [1]).
%% '''
-spec cancel(reference()) -> ok.
cancel(Ref) ->
    Cancel = fun() -> in_pool(Ref, fun(Engine) -> Engine:op_pool_cancel(Ref) end) end,
    case is_reference(Ref) andalso Cancel() of
        not_owner -> ?NOT_OWNER([Ref]);
        State when State =:= cancelled; State =:= sending; State =:= sent ->
            ok = tokamak_pool_spread:cancel(Ref),
            flush(Ref, State, Cancel);
        _ -> ?BADARG([Ref], [pool])
    end.

%% @private A run whose results are `{Result, [Child]}', for an agent; children are added by it.
-spec start_routed(handler(), options()) -> reference().
start_routed(Handler, Options) ->
    {Ref, _Run} = begin_run(Handler, Options#{routed => true}, undefined),
    Ref.

%% @private Items, or `{Key, Item}' where there is a key function.
-spec add_prepared(reference(), [item()]) -> ok | {error, closed}.
add_prepared(Ref, Items) ->
    in_pool(Ref, fun(Engine) ->
        case Engine:op_pool_key(Ref) of
            badarg -> badarg;
            _ -> add_cut(Engine, Ref, Items, fun(Some) -> Some end)
        end
    end).

%% @private
-spec stats_of(reference()) -> stats().
stats_of(Ref) ->
    in_pool(Ref, fun(Engine) -> Engine:op_pool_stats(Ref) end).

%% @private
-spec is_pool(reference()) -> boolean().
is_pool(Ref) ->
    in_pool(Ref, fun(Engine) -> Engine:op_pool_key(Ref) end) =/= badarg.

%%% Arguments

%% What is wrong with the arguments of a function, whose kinds but that of the options are given.
check(Handler, Seeds, Options, Kinds) ->
    Known = options_of(Handler),
    Checked = #{handler => Handler, seeds => Seeds, options => Options},
    Wanted = #{handler => handler, seeds => list, options => {options, Known}},
    case tokamak_error:options(Checked, Wanted) of
        ok -> check_together(Options, length(Kinds) + 1);
        error -> {badarg, Kinds ++ [{options, Known}]}
    end.

options_of({op, _}) -> ?NATIVE_OPTIONS;
options_of(_) -> ?OPTIONS.

check_together(#{nodes := _, max_items := _}, Position) ->
    {explained, #{Position => "max_items is not for a run of several nodes"}};
check_together(_Options, _Position) ->
    ok.

%%% Runs

fold_batches(Handler, Seeds, Fun, Acc, #{nodes := _} = Options) ->
    {Ref, _} = begin_run(Handler, Options, undefined),
    try
        _ = add_all(Ref, Seeds),
        ok = close(Ref),
        collect(fun() -> ack(Ref, 1) end, Ref, Fun, Acc)
    catch
        Class:Reason:Stack ->
            ok = cancel(Ref),
            erlang:raise(Class, Reason, Stack)
    end;
fold_batches(Handler, Seeds, Fun, Acc, Options) ->
    Ref = make_ref(),
    {_, {Engine, Handle}} = begin_run(Handler, Options, Ref),
    try
        _ = add_cut(Engine, Handle, Seeds),
        _ = Engine:op_pool_close(Handle),
        collect(fun() -> Engine:op_pool_ack(Handle, 1) end, Ref, Fun, Acc)
    catch
        Class:Reason:Stack ->
            Cancel = fun() -> Engine:op_pool_cancel(Handle) end,
            ok = flush(Ref, Cancel(), Cancel),
            erlang:raise(Class, Reason, Stack)
    end.

collect(Ack, Ref, Fun, Acc) ->
    receive
        {tokamak, Ref, {results, Results}} ->
            _ = Ack(),
            collect(Ack, Ref, Fun, Fun(Results, Acc));
        {tokamak, Ref, {finished, Stats}} ->
            {ok, Acc, Stats};
        {tokamak, Ref, {error, _} = Error} ->
            Error
    end.

%% Starts a run; its messages carry `Ref', or its handle where that is undefined. The handle of a run of
%% several nodes is that of a native run that has ended: it stays when the coordinator is gone.
begin_run(Handler, #{nodes := Nodes} = Options, undefined) ->
    {Ref, Run} = refused(ended, Options, undefined),
    case tokamak_pool_spread:start(Ref, Handler, Options, Nodes) of
        ok -> {Ref, Run};
        {error, _} = Error ->
            self() ! {tokamak, Ref, Error},
            {Ref, Run}
    end;
begin_run({op, Op}, Options, Ref) ->
    {Engine, Name} = tokamak_call:resolve(Op),
    Start = fun() -> Engine:op_pool_start(Name, native_options(Options), Ref) end,
    case tokamak_call:in_engine(Engine, Name, Start) of
        Handle when is_reference(Handle) -> {Handle, {Engine, Handle}};
        {error, _} = Error -> refused(Error, Options, Ref)
    end;
begin_run(Handler, Options, Ref) ->
    Key = [Fun || #{key := Fun} <- [Options]],
    FeedRef = make_ref(),
    case tokamak_pool_workers:start(Handler, Key, FeedRef, cut(Options)) of
        {ok, Manager} ->
            Native = native_options(Options),
            Handle = tokamak_nif:op_pool_start({Manager, FeedRef}, Native, Ref),
            ok = tokamak_pool_workers:serve(Manager, Handle),
            {Handle, {tokamak_nif, Handle}};
        {error, _} = Error ->
            refused(Error, Options, Ref)
    end.

%% A run that has ended before it began: its end is in the mailbox.
refused(Error, Options, Ref) ->
    Handle = tokamak_nif:op_pool_start('', native_options(Options), Ref),
    Sent =
        case Ref of
            undefined -> Handle;
            _ -> Ref
        end,
    receive
        {tokamak, Sent, {error, _}} -> ok
    end,
    _ = Error =/= ended andalso (self() ! {tokamak, Sent, Error}),
    {Handle, {tokamak_nif, Handle}}.

native_options(Options) ->
    #{
        workers => workers(Options),
        window => maps:get(window, Options, 16),
        stop_on_error => maps:get(on_error, Options, skip) =:= stop,
        max_items => maps:get(max_items, Options, 0),
        timeout =>
            case maps:get(timeout, Options, infinity) of
                infinity -> -1;
                Timeout -> Timeout
            end,
        progress => [Key || #{progress := Key} <- [Options]],
        key => [Fun || #{key := Fun} <- [Options]],
        routed => maps:get(routed, Options, false)
    }.

%% The children of a routed run stay with their result.
cut(#{routed := true}) -> infinity;
cut(_Options) -> ?CUT.

workers(Options) ->
    maps:get(workers, Options, erlang:system_info(schedulers_online)).

%%% References

%% Asks the engine whose run it is.
in_pool(Ref, Ask) when is_reference(Ref) ->
    in_pool_of(tokamak_engines:known(), Ask).

in_pool_of([Engine | Rest], Ask) ->
    case Ask(Engine) of
        badarg -> in_pool_of(Rest, Ask);
        Result -> Result
    end;
in_pool_of([], _Ask) ->
    badarg.

add_all(Ref, Items) ->
    case tokamak_pool_spread:find(Ref) of
        {ok, Coordinator, _Owner} -> add_spread(Coordinator, Ref, Items);
        error -> add_native(Ref, Items)
    end.

add_spread(Coordinator, Ref, Items) ->
    case in_pool(Ref, fun(Engine) -> Engine:op_pool_key(Ref) end) of
        [] -> tokamak_pool_spread:add(Coordinator, {false, Items});
        [Key] -> tokamak_pool_spread:add(Coordinator, {true, [{Key(Item), Item} || Item <- Items]})
    end.

add_native(Ref, Items) ->
    in_pool(Ref, fun(Engine) ->
        case Engine:op_pool_key(Ref) of
            badarg -> badarg;
            _ -> add_cut(Engine, Ref, Items)
        end
    end).

%% Long lists are cut, so that no native call takes long.
add_cut(Engine, Handle, Items) ->
    case Engine:op_pool_key(Handle) of
        [] -> add_cut(Engine, Handle, Items, fun(Some) -> Some end);
        [Key] -> add_cut(Engine, Handle, Items, fun(Some) -> [{Key(Item), Item} || Item <- Some] end)
    end.

add_cut(Engine, Handle, Items, Prepare) ->
    {Some, Rest} = cut(?CUT, Items, []),
    case {Engine:op_pool_add(Handle, Prepare(Some)), Rest} of
        {ok, []} -> ok;
        {ok, _} -> add_cut(Engine, Handle, Rest, Prepare);
        {closed, _} -> {error, closed}
    end.

cut(0, Items, Some) -> {lists:reverse(Some), Items};
cut(_N, [], Some) -> {lists:reverse(Some), []};
cut(N, [Item | Items], Some) -> cut(N - 1, Items, [Item | Some]).

%% Takes out of the mailbox what a cancelled run has sent. An end that is being sent comes, unless the owner took
%% it before the native side knew it sent.
flush(Ref, sending, Cancel) ->
    receive
        {tokamak, Ref, {results, _}} -> flush(Ref, sending, Cancel);
        {tokamak, Ref, _End} -> ok
    after 1 -> flush(Ref, Cancel(), Cancel)
    end;
flush(Ref, State, Cancel) ->
    receive
        {tokamak, Ref, _} -> flush(Ref, State, Cancel)
    after 0 -> ok
    end.
