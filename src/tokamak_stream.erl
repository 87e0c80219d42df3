%% SPDX-License-Identifier: Apache-2.0
%% @doc Streams and duplex operations, for {@link tokamak}: it words their misuse.
%%
%% Who waits is woken by one message with a reference of its own. A wait that times out may find that message on
%% its way: then it takes it, so that none is left behind. A stream that somebody made up may name any module: that
%% it is no engine is found by its missing function.
%% @private
-module(tokamak_stream).

-export([open/5, remote/5, next/2, take/1, push/3, close/1, is_stream/1]).

-include("tokamak_error.hrl").

-export_type([stream/0]).

-opaque stream() :: {tokamak_stream, module(), reference()} | tokamak_remote:stream().
-type misuse() :: not_owner | badarg.

%% @doc Opens a stream, or a duplex operation, whose engine was resolved.
-spec open(stream | duplex, {module(), atom()}, [term()], pos_integer(), pos_integer()) ->
    {ok, stream()} | {error, term()} | {badarg, non_neg_integer(), term()}.
open(Kind, {Engine, Name}, Args, Window, Inbox) ->
    Open = fun() -> Engine:op_open(Kind, Name, Args, Window, Inbox) end,
    case tokamak_call:in_engine(Engine, Name, Open) of
        {ok, Handle} -> {ok, {tokamak_stream, Engine, Handle}};
        Other -> Other
    end.

%% @doc Opens a stream on another node.
-spec remote(node(), tokamak:op(), [term()], pos_integer(), timeout()) -> stream() | {error, term()}.
remote(Node, Op, Args, Window, Timeout) ->
    tokamak_remote:stream(Node, Op, Args, Window, Timeout).

%% @doc Takes the next item, waiting for it.
-spec next(stream(), timeout()) -> {ok, term()} | done | {error, term()} | misuse().
next({tokamak_stream, Engine, Handle}, Timeout) when is_atom(Engine), ?IS_TIMEOUT(Timeout) ->
    Ref = make_ref(),
    try Engine:op_next(Handle, Ref) of
        waiting -> wait_next(Engine, Handle, Ref, tokamak_deadline:new(Timeout));
        Result -> Result
    catch
        error:undef -> badarg
    end;
next(Stream, Timeout) when ?IS_TIMEOUT(Timeout) ->
    case tokamak_remote:is_stream(Stream) of
        true -> tokamak_remote:next(Stream, Timeout);
        false -> badarg
    end;
next(_Stream, _Timeout) ->
    badarg.

wait_next(Engine, Handle, Ref, Deadline) ->
    receive
        {tokamak, Ref, ready} ->
            case Engine:op_next(Handle, Ref) of
                waiting -> wait_next(Engine, Handle, Ref, Deadline);
                Result -> Result
            end
    after tokamak_deadline:time_left(Deadline) ->
        case Engine:op_stop_waiting(Handle, next) of
            true -> {error, timeout};
            false -> last_look(Engine, Handle, Ref)
        end
    end.

%% The wake was sent before the wait ended, so it comes.
last_look(Engine, Handle, Ref) ->
    receive
        {tokamak, Ref, ready} ->
            case Engine:op_next(Handle, undefined) of
                waiting -> {error, timeout};
                Result -> Result
            end
    end.

%% @doc The next item of a stream of this node if it is there: `waiting' otherwise.
-spec take(stream()) -> {ok, term()} | waiting | done | {error, term()}.
take({tokamak_stream, Engine, Handle}) ->
    Engine:op_next(Handle, undefined).

%% @doc Gives a duplex operation an item, waiting for room.
-spec push(stream(), term(), timeout()) ->
    ok | {error, term()} | {badarg, term(), Expected :: unicode:chardata()} | misuse().
push({tokamak_stream, Engine, Handle}, Item, Timeout) when is_atom(Engine), ?IS_TIMEOUT(Timeout) ->
    Ref = make_ref(),
    try Engine:op_push(Handle, Item, Ref) of
        woken -> take_wake(Ref);
        full -> wait_push(Engine, Handle, Item, Ref, tokamak_deadline:new(Timeout));
        Result -> Result
    catch
        error:undef -> badarg
    end;
push(_Stream, _Item, _Timeout) ->
    badarg.

wait_push(Engine, Handle, Item, Ref, Deadline) ->
    receive
        {tokamak, Ref, ready} ->
            case Engine:op_push(Handle, Item, Ref) of
                woken -> take_wake(Ref);
                full -> wait_push(Engine, Handle, Item, Ref, Deadline);
                Result -> Result
            end
    after tokamak_deadline:time_left(Deadline) ->
        case Engine:op_stop_waiting(Handle, push) of
            true -> {error, timeout};
            false -> last_push(Engine, Handle, Item, Ref)
        end
    end.

%% The item is in, but the wake that it did not need any more is on its way.
take_wake(Ref) ->
    receive
        {tokamak, Ref, ready} -> ok
    end.

last_push(Engine, Handle, Item, Ref) ->
    receive
        {tokamak, Ref, ready} ->
            case Engine:op_push(Handle, Item, undefined) of
                full -> {error, timeout};
                Result -> Result
            end
    end.

%% @doc Ends a stream.
-spec close(stream()) -> ok | misuse().
close({tokamak_stream, Engine, Handle}) when is_atom(Engine) ->
    try
        Engine:op_close(Handle)
    catch
        error:undef -> badarg
    end;
close(Stream) ->
    case tokamak_remote:is_stream(Stream) of
        true -> tokamak_remote:close(Stream);
        false -> badarg
    end.

%% @doc Whether a term is a stream.
-spec is_stream(term()) -> boolean().
is_stream({tokamak_stream, Engine, Handle}) when is_atom(Engine) ->
    lists:member(Engine, tokamak_engines:known()) andalso
        Engine:op_stop_waiting(Handle, next) =/= badarg;
is_stream(Stream) ->
    tokamak_remote:is_stream(Stream).
