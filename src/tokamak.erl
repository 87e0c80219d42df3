%% SPDX-License-Identifier: Apache-2.0
%% @doc Native calls: Rust async functions from Erlang.
%%
%% An operation is named by an atom (one of the built-in engine) or by `{Engine, Name}', where the engine is
%% the module of a NIF built with the tokamak SDK. Every call has exactly one end: `{ok, Result}' or
%% `{error, Reason}'; once {@link await/2}, {@link cancel/1} or {@link close/1} has returned, no message of it
%% comes any more. A call is cancelled when its caller dies, and when a wait for it times out.
%%
%% Reasons: `timeout', `closed' (the end was taken before), `overloaded' (`max_in_flight' calls are running),
%% `shutdown' (the application stops or is stopped), `{unknown_operation, Op}', `{wrong_kind, Kind}' (a stream
%% cannot be called, a call not be opened as a stream), `{panic, Text}', `{encode, Text}' (the result could not
%% be made a term), and whatever an operation's own errors are, mostly `{Kind, Text}'. Wrong arguments raise
%% `badarg' with an explanation.
%%
%% Only the caller may wait for a call, cancel it or use a stream; any other process raises `not_owner'.
-module(tokamak).

-export([call/2, call/3, cast/2]).
-export([async/2, async/3, await/1, await/2, await_many/2, await_any/2, cancel/1]).
-export([gather/1, gather/2]).
-export([stream/2, stream/3, open/2, open/3, next/1, next/2, push/2, push/3, fold/3, close/1]).
-export([operations/0, stats/0, top/0, top/1]).
-export([is_call/1]).

-include("tokamak_error.hrl").

-export_type([op/0, stream/0, result/0]).

-type op() :: atom() | {Engine :: module(), Name :: atom()}.
-type result() :: {ok, term()} | {error, term()}.
-type stream() :: tokamak_stream:stream().
%% Opaque.

-define(CALL_TIMEOUT, 5000).
-define(CALL_OPTIONS, #{timeout => timeout, node => node}).
-define(ASYNC_OPTIONS, #{node => node}).
-define(GATHER_OPTIONS, #{timeout => timeout, max_concurrency => concurrency, mode => mode}).
-define(STREAM_OPTIONS, #{window => size, node => node}).
-define(OPEN_OPTIONS, #{window => size, inbox => size}).
-define(TOP_OPTIONS, #{interval => interval, count => concurrency}).
-define(NO_BOUND, 16#7FFFFFFF).

%% @doc Calls an operation and waits for its end, up to five seconds: {@link call/3} without options.
%%
%% ```
%% {ok, [1, two]} = tokamak:call(echo, [[1, two]]).
%% {error, {enoent, _}} = tokamak:call(list_dir, ["/no/such/directory"]).
%% {error, {unknown_operation, nonsense}} = tokamak:call(nonsense, []).
%% '''
-spec call(op(), [term()]) -> result().
call(Name, Args) when is_atom(Name) ->
    case tokamak_nif:op_call(Name, Args) of
        {ok, _} = End -> End;
        Other -> continue(tokamak_nif, Name, Args, Other, ?CALL_TIMEOUT)
    end;
call({Engine, Name}, Args) when is_atom(Engine), is_atom(Name) ->
    call_engine(Engine, Name, Args, ?CALL_TIMEOUT);
call(Op, Args) ->
    ?BADARG([Op, Args], [operation, arguments]).

%% @doc Calls an operation and waits for its end, up to the option `timeout' (milliseconds, 5000). A call that
%% times out is cancelled.
%%
%% An eager operation that is ready at once costs no message and no process switch. With the option `node',
%% the call runs on that connected node, or for `any' on one that has the engine, this one first; there, wrong
%% arguments are `{error, {badarg, Text}}', and a node that is lost is `{error, nodedown}'.
%%
%% ```
%% {ok, ok} = tokamak:call(sleep, [1], #{timeout => 1000}).
%% {error, timeout} = tokamak:call(sleep, [60000], #{timeout => 10}).
%% {ok, here} = tokamak:call(echo, [here], #{node => any}).
%% '''
-spec call(op(), [term()], #{timeout => timeout(), node => node() | any}) -> result().
call(Op, Args, Options) ->
    case {tokamak_call:resolve(Op), tokamak_error:options(Options, ?CALL_OPTIONS)} of
        {{Engine, Name}, ok} ->
            Timeout = maps:get(timeout, Options, ?CALL_TIMEOUT),
            case node_for(Engine, Options) of
                Node when Node =:= node() -> call_engine(Engine, Name, Args, Timeout);
                {error, _} = Error -> Error;
                Node -> tokamak_remote:call(Node, Op, Args, Timeout)
            end;
        _ ->
            ?BADARG([Op, Args, Options], [operation, arguments, {options, ?CALL_OPTIONS}])
    end.

node_for(Engine, #{node := Node}) -> tokamak_remote:node_for(Node, Engine);
node_for(_Engine, _Options) -> node().

call_engine(Engine, Name, Args, Timeout) ->
    case tokamak_call:ensure(Engine, Name) of
        ok -> continue(Engine, Name, Args, Engine:op_call(Name, Args), Timeout);
        {error, _} = Error -> Error
    end.

%% What the first native call gave: an end, or what there is to wait for.
continue(Engine, Name, Args, use_reference, Timeout) ->
    Ref = make_ref(),
    case Engine:op_call_with(Name, Args, Ref) of
        Key when is_integer(Key) -> wait(Engine, Key, Ref, Timeout);
        Other -> continue(Engine, Name, Args, Other, Timeout)
    end;
continue(Engine, _Name, _Args, {pending, Handle}, Timeout) ->
    Ref = make_ref(),
    ok = Engine:op_resume(Handle, Ref),
    wait(Engine, Handle, Ref, Timeout);
continue(Engine, Name, Args, {badarg, _, _} = Badarg, _Timeout) ->
    badarg(call, Engine, Name, Args, Badarg);
continue(_Engine, _Name, _Args, End, _Timeout) ->
    End.

wait(Engine, Call, Ref, Timeout) ->
    receive
        {tokamak, Ref, End} -> End
    after Timeout ->
        case Engine:op_cancel(Call) of
            cancelled ->
                {error, timeout};
            _SendingOrSent ->
                %% It ended first.
                receive
                    {tokamak, Ref, End} -> End
                end
        end
    end.

%% Wrong arguments of an operation, which the native side finds: raised as by the function that was called.
-spec badarg(atom(), module(), atom(), term(), {badarg, non_neg_integer(), string() | binary()}) -> no_return().
badarg(Function, Engine, Name, Args, {badarg, Index, Expected}) ->
    Op =
        case Engine of
            tokamak_nif -> Name;
            _ -> {Engine, Name}
        end,
    Explained = {explained, #{2 => tokamak_call:explain(Index, Expected)}},
    Info = [{error_info, #{module => tokamak_error, cause => Explained}}],
    {current_stacktrace, [_Here | Callers]} = process_info(self(), current_stacktrace),
    erlang:raise(error, badarg, [{?MODULE, Function, [Op, Args], Info} | Callers]).

%% @doc Runs an operation that nobody waits for, and that lives on when its caller dies. Does not wait; `ok' says that
%% it was started, and nothing tells how it ends.
%%
%% ```
%% ok = tokamak:cast(sleep, [1]).
%% '''
-spec cast(op(), [term()]) -> ok | {error, term()}.
cast(Op, Args) ->
    case tokamak_call:resolve(Op) of
        {Engine, Name} ->
            case tokamak_call:in_engine(Engine, Name, fun() -> Engine:op_cast(Name, Args) end) of
                {badarg, _, _} = Badarg -> badarg(cast, Engine, Name, Args, Badarg);
                Result -> Result
            end;
        error ->
            ?BADARG([Op, Args], [operation, arguments])
    end.

%% @equiv async(Op, Args, #{})
-spec async(op(), [term()]) -> reference().
async(Op, Args) ->
    async(Op, Args, #{}).

%% @doc Starts an operation and does not wait. Its end comes as `{tokamak, Ref, {ok, Result}}' or
%% `{tokamak, Ref, {error, Reason}}': also when it is refused or unknown. There is no time-out but that of the
%% {@link await/2} that follows. Dropping the reference cancels nothing. The option `node' is that of {@link call/3}.
%%
%% ```
%% Ref = tokamak:async(sleep, [1]).
%% ok = receive {tokamak, Ref, {ok, Result}} -> Result end.
%%
%% There = tokamak:async(echo, [1], #{node => any}).
%% {ok, 1} = tokamak:await(There).
%% '''
-spec async(op(), [term()], #{node => node() | any}) -> reference().
async(Op, Args, Options) ->
    case {tokamak_call:resolve(Op), tokamak_error:options(Options, ?ASYNC_OPTIONS)} of
        {{Engine, Name}, ok} ->
            case node_for(Engine, Options) of
                Node when Node =:= node() -> async_engine(Engine, Name, Args);
                {error, _} = Error -> ended(Error);
                Node -> async_remote(Node, Op, Args)
            end;
        _ ->
            Kinds = [operation, arguments, {options, ?ASYNC_OPTIONS}],
            ?BADARG([Op, Args, Options], Kinds)
    end.

async_engine(Engine, Name, Args) ->
    Start = fun() -> Engine:op_async(Name, Args) end,
    case tokamak_call:in_engine(Engine, Name, Start) of
        Ref when is_reference(Ref) -> Ref;
        {badarg, _, _} = Badarg -> badarg(async, Engine, Name, Args, Badarg);
        {error, _} = Error -> ended(Error)
    end.

async_remote(Node, Op, Args) ->
    Ref = silent(),
    case tokamak_remote:async(Ref, Node, Op, Args) of
        ok -> Ref;
        {error, _} = Error -> ended(Ref, Error)
    end.

%% The reference of a call whose engine is not there: its end is in the mailbox.
ended(End) ->
    ended(silent(), End).

ended(Ref, End) ->
    self() ! {tokamak, Ref, End},
    Ref.

%% A reference of a native call that has ended, without its message.
silent() ->
    Ref = tokamak_nif:op_async('', []),
    receive
        {tokamak, Ref, _} -> Ref
    end.

%% @equiv await(Ref, 5000)
-spec await(reference()) -> result().
await(Ref) ->
    await(Ref, ?CALL_TIMEOUT).

%% @doc Waits for the end of a call, up to `Timeout' milliseconds; then cancels it, and if it ended first,
%% returns its end all the same. After the end was taken: `{error, closed}'.
%%
%% ```
%% Ref = tokamak:async(sleep, [1]).
%% {ok, ok} = tokamak:await(Ref).
%% {error, closed} = tokamak:await(Ref).
%%
%% Long = tokamak:async(sleep, [60000]).
%% {error, timeout} = tokamak:await(Long, 10).
%% '''
-spec await(reference(), timeout()) -> result().
await(Ref, Timeout) when ?IS_TIMEOUT(Timeout) ->
    %% A receive of a reference that is made here does not look through the whole mailbox.
    Own = make_ref(),
    case ask(Ref, fun(Engine) -> Engine:op_await(Ref, Own) end) of
        {Engine, running} ->
            wait(Engine, Ref, Own, Timeout);
        {Engine, sending} ->
            take_sending(Engine, Ref);
        {_Engine, sent} ->
            await_sent(Ref, Timeout);
        {_Engine, cancelled} ->
            {error, closed};
        not_owner ->
            ?NOT_OWNER([Ref, Timeout]);
        error ->
            ?BADARG([Ref, Timeout], [call, timeout])
    end;
await(Ref, Timeout) ->
    ?BADARG([Ref, Timeout], [call, timeout]).

%% The end that is being sent comes, unless the caller took it itself before the native side knew it sent.
take_sending(Engine, Ref) ->
    receive
        {tokamak, Ref, End} -> End
    after 1 ->
        case Engine:op_state(Ref) of
            sending ->
                take_sending(Engine, Ref);
            _Sent ->
                receive
                    {tokamak, Ref, End} -> End
                after 0 -> {error, closed}
                end
        end
    end.

%% A call that needs no native part any more: its end was sent, or it runs on another node.
await_sent(Ref, Timeout) ->
    case tokamak_remote:helper_of(Ref) of
        {ok, Helper} ->
            tokamak_remote:await(Helper, Ref, Timeout);
        none ->
            receive
                {tokamak, Ref, End} -> End
            after 0 -> {error, closed}
            end
    end.

%% The engine of a call, and what it says of it.
ask(Ref, Ask) when is_reference(Ref) ->
    first_answer(Ask, tokamak_engines:known());
ask(_Ref, _Ask) ->
    error.

first_answer(Ask, [Engine | Rest]) ->
    case Ask(Engine) of
        badarg -> first_answer(Ask, Rest);
        not_owner -> not_owner;
        Answer -> {Engine, Answer}
    end;
first_answer(_Ask, []) ->
    error.

state(Ref) ->
    ask(Ref, fun(Engine) -> Engine:op_state(Ref) end).

%% @private
-spec is_call(reference()) -> boolean().
is_call(Ref) ->
    state(Ref) =/= error.

%% @doc Waits for the ends of calls, in their order; together up to `Timeout' milliseconds, after which
%% those that still run are cancelled and `{error, timeout}'.
%%
%% ```
%% Refs = [tokamak:async(echo, [N]) || N <- [1, 2, 3]].
%% [{ok, 1}, {ok, 2}, {ok, 3}] = tokamak:await_many(Refs, 1000).
%% '''
-spec await_many([reference()], timeout()) -> [result()].
await_many(Refs, Timeout) ->
    case check_calls(Refs, Timeout) of
        ok ->
            Deadline = tokamak_deadline:new(Timeout),
            [await(Ref, tokamak_deadline:time_left(Deadline)) || Ref <- Refs];
        not_owner ->
            ?NOT_OWNER([Refs, Timeout]);
        error ->
            ?BADARG([Refs, Timeout], [calls_in_flight, timeout])
    end.

check_calls(Refs, Timeout) ->
    case tokamak_error:options(#{calls => Refs, timeout => Timeout},
                               #{calls => calls_in_flight, timeout => timeout}) of
        ok ->
            case lists:any(fun(Ref) -> state(Ref) =:= not_owner end, Refs) of
                true -> not_owner;
                false -> ok
            end;
        error ->
            error
    end.

%% @doc Waits for the first end among calls; the others go on. When none came within `Timeout' milliseconds,
%% all are cancelled and `{error, timeout}' is returned. An end that was taken before counts as the first: `{Ref,
%% {error, closed}}'.
%%
%% ```
%% Short = tokamak:async(sleep, [1]).
%% Long = tokamak:async(sleep, [60000]).
%% {Short, {ok, ok}} = tokamak:await_any([Short, Long], 5000).
%% ok = tokamak:cancel(Long).
%% '''
-spec await_any([reference(), ...], timeout()) -> {reference(), result()} | {error, timeout}.
await_any([_ | _] = Refs, Timeout) ->
    case check_calls(Refs, Timeout) of
        ok -> await_first(Refs, maps:from_keys(Refs, true), tokamak_deadline:new(Timeout));
        not_owner -> ?NOT_OWNER([Refs, Timeout]);
        error -> ?BADARG([Refs, Timeout], [calls_in_flight, timeout])
    end;
await_any([], Timeout) ->
    ?EXPLAINED([[], Timeout], #{1 => "empty: there is no first end"});
await_any(Refs, Timeout) ->
    ?BADARG([Refs, Timeout], [calls_in_flight, timeout]).

await_first(Refs, Waiting, Deadline) ->
    States = [{stage(Ref), Ref} || Ref <- Refs],
    TimeLeft = tokamak_deadline:time_left(Deadline),
    receive
        {tokamak, Ref, End} when is_map_key(Ref, Waiting) -> {Ref, End}
    after patience(States, TimeLeft) ->
        case lists:keyfind(ended, 1, States) of
            {ended, Ref} -> {Ref, {error, closed}};
            false when TimeLeft =:= 0 -> first_of_cancelled(Refs, []);
            false -> await_first(Refs, Waiting, Deadline)
        end
    end.

%% Where a call stands, for who looks into the mailbox next: the end of one that `ended' is there, or was taken.
stage(Ref) ->
    case state(Ref) of
        {_Engine, sent} -> tokamak_remote:stage(Ref);
        {_Engine, cancelled} -> ended;
        {_Engine, State} -> State
    end.

%% An end that is being sent comes, or was taken by the caller before the native side knew it sent.
patience(States, TimeLeft) ->
    case {lists:keymember(ended, 1, States), lists:keymember(sending, 1, States)} of
        {true, _} -> 0;
        {false, true} -> min(1, TimeLeft);
        {false, false} -> TimeLeft
    end.

%% A call that loses the race against its cancel gives the end of all.
first_of_cancelled([Ref | Rest], Passed) ->
    case await(Ref, 0) of
        {error, Reason} when Reason =:= timeout; Reason =:= closed ->
            first_of_cancelled(Rest, [Ref | Passed]);
        End ->
            {Ref, End}
    end;
first_of_cancelled([], _Passed) ->
    {error, timeout}.

%% @doc Cancels a call: no message of it comes any more, and none is in the mailbox. One that ended is forgotten.
%% Does not wait, except for an end that is being sent in this moment. A blocking operation ends for its caller and
%% keeps its thread until it returns.
%%
%% ```
%% Ref = tokamak:async(sleep, [60000]).
%% ok = tokamak:cancel(Ref).
%% {error, closed} = tokamak:await(Ref).
%% '''
-spec cancel(reference()) -> ok.
cancel(Ref) ->
    case ask(Ref, fun(Engine) -> Engine:op_cancel(Ref) end) of
        {_Engine, cancelled} ->
            ok;
        {Engine, sending} ->
            _ = take_sending(Engine, Ref),
            ok;
        {_Engine, sent} ->
            cancel_sent(Ref);
        not_owner ->
            ?NOT_OWNER([Ref]);
        error ->
            ?BADARG([Ref], [call])
    end.

cancel_sent(Ref) ->
    case tokamak_remote:helper_of(Ref) of
        {ok, Helper} ->
            _ = tokamak_remote:stop(Helper, Ref),
            ok;
        none ->
            receive
                {tokamak, Ref, _} -> ok
            after 0 -> ok
            end
    end.

%% @equiv gather(Calls, #{})
-spec gather([{op(), [term()]}]) ->
    {ok, [term()]} | {error, {Index :: pos_integer(), term()} | timeout | term()}.
gather(Calls) ->
    gather(Calls, #{}).

%% @doc Runs calls side by side and waits for all of them.
%%
%% Options: `mode' `fail_fast' (the first failure cancels the rest and is returned with its index, from 1) or
%% `settle' (`{ok, [Result]}' whatever the results are); `max_concurrency' (infinity): how many run at once;
%% `timeout' (milliseconds, infinity), after which all are cancelled. No call starts before the arguments of all are
%% good. A gather waits for places among the calls in flight instead of being refused.
%%
%% ```
%% {ok, [1, two]} = tokamak:gather([{echo, [1]}, {echo, [two]}]).
%%
%% Calls = [{sleep, [1]}, {list_dir, ["/no/such/directory"]}].
%% {error, {2, {enoent, _}}} = tokamak:gather(Calls).
%% {ok, [{ok, ok}, {error, {enoent, _}}]} = tokamak:gather(Calls, #{mode => settle, max_concurrency => 1}).
%% '''
-spec gather([{op(), [term()]}], #{
    timeout => timeout(),
    max_concurrency => pos_integer() | infinity,
    mode => fail_fast | settle
}) -> {ok, [term()]} | {error, {Index :: pos_integer(), term()} | timeout | term()}.
gather(Calls, Options) ->
    case {tokamak_gather:resolve(Calls), tokamak_error:options(Options, ?GATHER_OPTIONS)} of
        {{ok, Resolved}, ok} ->
            case tokamak_gather:run(Resolved, gather_options(Options)) of
                {badarg, Call, Index, Expected} ->
                    Text = tokamak_call:explain(Index, Expected),
                    Explanation = io_lib:format("in call ~b, the argument list: ~ts", [Call, Text]),
                    ?EXPLAINED([Calls, Options], #{1 => Explanation});
                Result ->
                    Result
            end;
        _ ->
            ?BADARG([Calls, Options], [calls, {options, ?GATHER_OPTIONS}])
    end.

gather_options(Options) ->
    MaxConcurrency =
        case maps:get(max_concurrency, Options, infinity) of
            infinity -> ?NO_BOUND;
            Bound -> Bound
        end,
    Mode = maps:get(mode, Options, fail_fast),
    {MaxConcurrency, Mode, maps:get(timeout, Options, infinity)}.

%% @equiv stream(Op, Args, #{})
-spec stream(op(), [term()]) -> stream() | {error, term()}.
stream(Op, Args) ->
    stream(Op, Args, #{}).

%% @doc Opens a stream of the calling process. Its producer runs ahead of its consumer by `window' items (16) and then
%% waits. Does not wait itself, except for another node: that has five seconds to open the stream, then it is
%% `{error, timeout}'. An error can be passed on to {@link next/2} and {@link fold/3}, which return it. The option
%% `node' is that of {@link call/3}.
%%
%% ```
%% Stream = tokamak:stream(count, [2, 0], #{window => 4}).
%% {ok, 1} = tokamak:next(Stream).
%% {ok, 2} = tokamak:next(Stream).
%% done = tokamak:next(Stream).
%% {error, closed} = tokamak:next(Stream).
%% '''
-spec stream(op(), [term()], #{window => pos_integer(), node => node() | any}) ->
    stream() | {error, term()}.
stream(Op, Args, Options) ->
    case {tokamak_call:resolve(Op), tokamak_error:options(Options, ?STREAM_OPTIONS)} of
        {{Engine, Name}, ok} ->
            case node_for(Engine, Options) of
                Node when Node =:= node() ->
                    open_native(stream, Engine, Name, Args, Options);
                {error, _} = Error ->
                    Error;
                Node ->
                    tokamak_stream:remote(Node, Op, Args, window(Options), ?CALL_TIMEOUT)
            end;
        _ ->
            ?BADARG([Op, Args, Options], [operation, arguments, {options, ?STREAM_OPTIONS}])
    end.

%% @equiv open(Op, Args, #{})
-spec open(op(), [term()]) -> stream() | {error, term()}.
open(Op, Args) ->
    open(Op, Args, #{}).

%% @doc Opens a duplex operation: a stream of the calling process that also takes input, by {@link push/3}, up to
%% `inbox' items (64) ahead of the operation. Does not wait. Duplex operations are those of your own engines, see
%% docs/writing-operations.md; here one that gives the sum so far for each number it takes.
%%
%% ```
%% Stream = tokamak:open({my_engine, sums}, [0], #{inbox => 8}).
%% ok = tokamak:push(Stream, 20).
%% {ok, 20} = tokamak:next(Stream).
%% ok = tokamak:push(Stream, 22).
%% {ok, 42} = tokamak:next(Stream).
%% ok = tokamak:close(Stream).
%% '''
-spec open(op(), [term()], #{window => pos_integer(), inbox => pos_integer()}) ->
    stream() | {error, term()}.
open(Op, Args, Options) ->
    case {tokamak_call:resolve(Op), tokamak_error:options(Options, ?OPEN_OPTIONS)} of
        {{Engine, Name}, ok} -> open_native(duplex, Engine, Name, Args, Options);
        _ -> ?BADARG([Op, Args, Options], [operation, arguments, {options, ?OPEN_OPTIONS}])
    end.

open_native(Kind, Engine, Name, Args, Options) ->
    Inbox = maps:get(inbox, Options, 64),
    case tokamak_stream:open(Kind, {Engine, Name}, Args, window(Options), Inbox) of
        {ok, Stream} -> Stream;
        {badarg, _, _} = Badarg -> badarg(function_of(Kind), Engine, Name, Args, Badarg);
        {error, _} = Error -> Error
    end.

function_of(stream) -> stream;
function_of(duplex) -> open.

window(Options) -> maps:get(window, Options, 16).

%% @equiv next(Stream, 5000)
-spec next(stream() | {error, Reason}) -> {ok, term()} | done | {error, timeout | closed | Reason | term()}.
next(Stream) ->
    next(Stream, ?CALL_TIMEOUT).

%% @doc Takes the next item of a stream, waiting up to `Timeout' milliseconds for it; a stream goes on after a
%% time-out. `done', or the error that ended it, comes once, then `{error, closed}'.
%%
%% ```
%% Stream = tokamak:stream(count, [3, 200]).
%% {error, timeout} = tokamak:next(Stream, 0).
%% {ok, 1} = tokamak:next(Stream, 5000).
%% ok = tokamak:close(Stream).
%% '''
-spec next(stream() | {error, Reason}, timeout()) ->
    {ok, term()} | done | {error, timeout | closed | Reason | term()}.
next({error, _} = Error, _Timeout) ->
    Error;
next(Stream, Timeout) ->
    case tokamak_stream:next(Stream, Timeout) of
        not_owner -> ?NOT_OWNER([Stream, Timeout]);
        badarg -> ?BADARG([Stream, Timeout], [stream, timeout]);
        Result -> Result
    end.

%% @equiv push(Stream, Item, 5000)
-spec push(stream() | {error, Reason}, term()) -> ok | {error, timeout | closed | Reason | term()}.
push(Stream, Item) ->
    push(Stream, Item, ?CALL_TIMEOUT).

%% @doc Gives a duplex operation an item, waiting up to `Timeout' milliseconds while its inbox is full. An item
%% of another type than it takes raises `badarg'. `closed': the operation has ended.
%%
%% ```
%% Stream = tokamak:open({my_engine, sums}, [0]).
%% ok = tokamak:push(Stream, 42, 1000).
%% {ok, 42} = tokamak:next(Stream).
%% ok = tokamak:close(Stream).
%% {error, closed} = tokamak:push(Stream, 1).
%% '''
-spec push(stream() | {error, Reason}, term(), timeout()) -> ok | {error, timeout | closed | Reason | term()}.
push({error, _} = Error, _Item, _Timeout) ->
    Error;
push(Stream, Item, Timeout) ->
    case tokamak_stream:push(Stream, Item, Timeout) of
        {badarg, _, Expected} -> ?EXPLAINED([Stream, Item, Timeout], #{2 => ["not an item of ", Expected]});
        not_owner -> ?NOT_OWNER([Stream, Item, Timeout]);
        badarg -> ?BADARG([Stream, Item, Timeout], [stream, term, timeout]);
        Result -> Result
    end.

%% @doc Folds over the items of a stream until its end, waiting as long as it takes. The stream is closed
%% when `Fun' raises. An error that ends the stream is returned, without what was folded so far.
%%
%% ```
%% {ok, 5050} = tokamak:fold(fun(N, Sum) -> N + Sum end, 0, tokamak:stream(count, [100, 0])).
%% '''
-spec fold(fun((Item :: term(), Acc) -> Acc), Acc, stream() | {error, Reason}) ->
    {ok, Acc} | {error, closed | Reason | term()}.
fold(Fun, Acc, Stream) when is_function(Fun, 2) ->
    fold_items(Fun, Acc, Stream);
fold(Fun, Acc, Stream) ->
    ?BADARG([Fun, Acc, Stream], [function, term, stream]).

fold_items(Fun, Acc, Stream) ->
    case next(Stream, infinity) of
        {ok, Item} -> fold_items(Fun, apply_or_close(Fun, Item, Acc, Stream), Stream);
        done -> {ok, Acc};
        {error, _} = Error -> Error
    end.

apply_or_close(Fun, Item, Acc, Stream) ->
    try
        Fun(Item, Acc)
    catch
        Class:Reason:Stacktrace ->
            ok = close(Stream),
            erlang:raise(Class, Reason, Stacktrace)
    end.

%% @doc Ends a stream: its producer is cancelled, what is in its window is dropped, and no message of it comes any
%% more. `ok', too, when it had ended, or did not start. Does not wait.
%%
%% ```
%% Stream = tokamak:stream(count, [1000000, 0]).
%% {ok, 1} = tokamak:next(Stream).
%% ok = tokamak:close(Stream).
%% {error, closed} = tokamak:next(Stream).
%% '''
-spec close(stream() | {error, term()}) -> ok.
close({error, _NotStarted}) ->
    ok;
close(Stream) ->
    case tokamak_stream:close(Stream) of
        ok -> ok;
        not_owner -> ?NOT_OWNER([Stream]);
        badarg -> ?BADARG([Stream], [stream])
    end.

%% @doc Lists the operations of the built-in engine and of the engines that were called since the start. The kind is
%% `async', `eager', `blocking', `stream' or `duplex'.
%%
%% ```
%% [#{kind := eager, arity := 1}] = [Op || #{name := echo} = Op <- tokamak:operations()].
%% '''
-spec operations() -> [#{engine := module(), name := atom(), arity := arity(), kind := atom()}].
operations() ->
    [
        #{engine => Engine, name => Name, arity => Arity, kind => Kind}
     || Engine <- tokamak_engines:all(), {Name, Arity, Kind} <- lists:sort(Engine:op_list())
    ].

%% @doc What the library holds and counts. docs/counters.md says what each number means.
%%
%% Calls `in_flight' in all engines, open `loops', `fds' and `subprocesses', processes that own something
%% (`owners'); each engine's runtime in `engines', the base library's as `runtime', too. How many calls ended in all
%% engines, by kind, and how long they took: `calls'; how long loops waited for their consumers: `wake_to_drain'.
%% `loop_totals', `subprocess_totals'; and each open loop, run of a pool (in its engine's map) and subprocess:
%% `loop_info', `pool_info', `subprocess_info'. The `alarms' that are set. Times are nanoseconds.
%%
%% ```
%% #{in_flight := _, loops := _, runtime := #{workers := _}, calls := #{eager := #{count := _}}} = tokamak:stats().
%% '''
-spec stats() -> map().
stats() ->
    #{engines := Engines, wake_to_drain := Wakes} = Stats = tokamak_stats:stats(),
    Calls = tokamak_stats:sum([Calls || #{calls := Calls} <- maps:values(Engines)]),
    Summarised = maps:map(fun(_Engine, Runtime) -> summarised(Runtime) end, Engines),
    Stats#{
        calls => summaries(Calls),
        engines := Summarised,
        runtime := maps:get(tokamak_nif, Summarised),
        wake_to_drain := tokamak_stats:summary(Wakes)
    }.

summarised(#{calls := Calls} = Runtime) -> Runtime#{calls := summaries(Calls)};
summarised(Runtime) -> Runtime.

summaries(Calls) ->
    maps:map(fun(_Kind, Timed) -> tokamak_stats:summary(Timed) end, Calls).

%% @equiv top(#{})
-spec top() -> ok.
top() ->
    top(#{}).

%% @doc Shows what goes on, anew each `interval' (1000) milliseconds, `count' times, or until Enter is pressed
%% (`infinity'). What is not a terminal gets plain lines.
%%
%% ```
%% ok = tokamak:top(#{interval => 10, count => 1}).
%% '''
-spec top(#{interval => pos_integer(), count => pos_integer() | infinity}) -> ok.
top(Options) ->
    case tokamak_error:options(Options, ?TOP_OPTIONS) of
        ok -> tokamak_top:run(maps:get(interval, Options, 1000), maps:get(count, Options, infinity));
        error -> ?BADARG([Options], [{options, ?TOP_OPTIONS}])
    end.
