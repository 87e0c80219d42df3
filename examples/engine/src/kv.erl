%% SPDX-License-Identifier: Apache-2.0
%% @doc A key-value store: what its users see.
-module(kv).

-export([open/1, get/2, put/3, delete/2, wait_for/3, fold/4, transaction/2]).

-type store() :: reference().
-type reason() :: {not_found | database, binary()} | overloaded | shutdown | timeout | term().

%% @doc Opens a store, or makes one. It is closed when nobody refers to it any more.
-spec open(file:filename()) -> {ok, store()} | {error, reason()}.
open(Path) -> tokamak:call({kv_engine, open}, [Path]).

-spec get(store(), binary()) -> {ok, binary()} | {error, reason()}.
get(Store, Key) -> tokamak:call({kv_engine, get}, [Store, Key]).

-spec put(store(), binary(), binary()) -> ok | {error, reason()}.
put(Store, Key, Value) -> done(tokamak:call({kv_engine, put}, [Store, Key, Value])).

-spec delete(store(), binary()) -> ok | {error, reason()}.
delete(Store, Key) -> done(tokamak:call({kv_engine, delete}, [Store, Key])).

%% @doc Waits until there is such a key.
-spec wait_for(store(), binary(), timeout()) -> {ok, binary()} | {error, reason()}.
wait_for(Store, Key, Timeout) ->
    tokamak:call({kv_engine, wait_for}, [Store, Key], #{timeout => Timeout}).

%% @doc Folds over the pairs whose keys begin with a prefix.
-spec fold(fun(({binary(), binary()}, Acc) -> Acc), Acc, store(), binary()) ->
    {ok, Acc} | {error, reason()}.
fold(Fun, Acc, Store, Prefix) ->
    tokamak:fold(Fun, Acc, tokamak:stream({kv_engine, scan}, [Store, Prefix])).

%% @doc Makes all changes, or none.
-spec transaction(store(), [{put, binary(), binary()} | {delete, binary()}]) ->
    {ok, non_neg_integer()} | {error, reason()}.
transaction(Store, Changes) ->
    case tokamak:open({kv_engine, session}, [Store]) of
        {error, _} = Error ->
            Error;
        Session ->
            try
                [ok = tokamak:push(Session, Change, infinity) || Change <- Changes ++ [commit]],
                case tokamak:next(Session, infinity) of
                    {ok, {committed, Count}} -> {ok, Count};
                    {error, _} = Error -> Error
                end
            after
                tokamak:close(Session)
            end
    end.

done({ok, ok}) -> ok;
done({error, _} = Error) -> Error.
